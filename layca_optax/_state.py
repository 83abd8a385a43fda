"""Finds this library's states in an optimizer's state, and checks them."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax


def find_states(opt_state: Any, kinds: tuple[Any, ...], what: str, advice: str) -> list[Any]:
    """Returns the states of these types, wherever they are in `opt_state`.

    Raises:
      ValueError: there is none. The message lists what there is and gives `advice`; if a checkpoint was
        restored as dictionaries, it says how to restore the types.
    """
    is_one = lambda node: isinstance(node, kinds)
    found = [node for node in jax.tree.leaves(opt_state, is_leaf=is_one) if is_one(node)]
    if found:
        return found
    names, restored = [], []
    for node in _nodes(opt_state):
        names += [type(node).__name__] if hasattr(node, "_fields") else []
        keys = set(node) if isinstance(node, Mapping) else set()
        restored += [kind.__name__ for kind in kinds if keys >= set(kind._fields)]
    if restored:
        raise ValueError(
            f"this state has dictionaries where it had a {restored[0]}, as if restored from a checkpoint"
            " without a target. Pass the checkpointer a target: jax.eval_shape(optimizer.init, params)"
        )
    holds = ", ".join(dict.fromkeys(names)) or type(opt_state).__name__
    raise ValueError(f"nothing in this state {what}; it holds {holds}: {advice}")


def by_path(entries: Any) -> dict[str, Any]:
    """Returns a state's entries by path; an empty dictionary if the parameters had no leaves."""
    return entries if isinstance(entries, dict) else {}


def reboxed(boxes: Any, arrays: dict[str, jax.Array]) -> Any:
    """Wraps arrays in Flax variables if `nnx.Optimizer` wrapped the entries of the state, `boxes`."""
    return {name: jax.tree.unflatten(jax.tree.structure(boxes[name]), [x]) for name, x in arrays.items()}


def check_layers(owner: str, found: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]) -> None:
    """Raises `ValueError` if the leaves and shapes in the state of `owner` are not those wanted."""
    problems = [f"{name!r} rotates, but is not in the state" for name in wanted if name not in found]
    problems += [f"{name!r} is in the state, but does not rotate" for name in found if name not in wanted]
    for name in wanted.keys() & found.keys():
        if wanted[name] != found[name]:
            problems.append(f"at {name!r} the state has the shape {found[name]} instead of {wanted[name]}")
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValueError(
            f"this state of {owner} was made for other parameters or by another rule:"
            f" {'; '.join(problems[:3])}{more}"
        )


def _nodes(tree: Any) -> Iterator[Any]:
    yield tree
    for child in jax.tree.leaves(tree, is_leaf=lambda node: node is not tree):
        if child is not tree:
            yield from _nodes(child)
