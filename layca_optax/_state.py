"""The states of this library, found in the state of an optimizer, and checked."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax


def find_states(opt_state: Any, kinds: tuple[Any, ...], what: str, advice: str) -> list[Any]:
    """The states of these types, wherever they stand.

    Raises:
      ValueError: there is none. The message says what there is, and `advice`; if a state was restored as
        dictionaries, how it is restored as what it was.
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
            f"this state has dictionaries where it had a {restored[0]}, as checkpoints do that are restored"
            " without a target. Give the checkpointer the states to restore:"
            " jax.eval_shape(optimizer.init, params)"
        )
    holds = ", ".join(dict.fromkeys(names)) or type(opt_state).__name__
    raise ValueError(f"nothing in this state {what}; it holds {holds}: {advice}")


def by_path(entries: Any) -> dict[str, Any]:
    """What a state holds by path; of a tree without leaves, nothing."""
    return entries if isinstance(entries, dict) else {}


def reboxed(boxes: Any, arrays: dict[str, jax.Array]) -> Any:
    """The arrays in Flax variables like those in which `nnx.Optimizer` keeps the entries of a state."""
    return {name: jax.tree.unflatten(jax.tree.structure(boxes[name]), [x]) for name, x in arrays.items()}


def check_layers(owner: str, found: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]) -> None:
    """Raises `ValueError` if the state of `owner` has not the leaves and shapes that are wanted."""
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
