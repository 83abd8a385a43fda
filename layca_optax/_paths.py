"""Paths of leaves: the same for every kind of tree that holds the same parameters."""

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

Path = tuple[str, ...]


def leaf_paths(tree: Any, is_leaf: Callable[[Any], bool] = lambda node: False) -> list[Path]:
    """Returns the path of every leaf, in the order of `jax.tree.leaves(tree, is_leaf)`.

    A Flax variable is a node with one child, `value`, which the path leaves out: so a `State` of `Param`s
    and the dictionary of its arrays have the same paths.
    """
    paths = []
    stop = lambda node: is_flax_variable(node) or is_leaf(node)
    for keys, node in jax.tree_util.tree_leaves_with_path(tree, is_leaf=stop):
        path = _strings(keys)
        if not is_flax_variable(node):
            paths.append(path)
            continue
        for inner, _ in jax.tree_util.tree_leaves_with_path(node):
            is_value = len(inner) > 0 and inner[-1] == jax.tree_util.GetAttrKey("value")
            paths.append(path + _strings(inner[:-1] if is_value else inner))
    return paths


def leaf_boxes(tree: Any) -> list[Any]:
    """Returns every leaf, inside the node around it that holds nothing else, if there is one.

    Such nodes say how a leaf is sharded: Flax variables, arrays with named axes.
    """
    boxes = []
    for node in jax.tree.leaves(tree, is_leaf=lambda node: is_flax_variable(node) or _is_box(node)):
        inner = jax.tree.leaves(node)
        boxes += [node] if len(inner) == 1 else inner
    return boxes


def unboxed(box: Any) -> jax.Array:
    """Takes the array out of a Flax variable, of the parameters or of an `nnx.Optimizer`."""
    (array,) = jax.tree.leaves(box)
    return array


def natural_order(name: str) -> list[str | int]:
    """Returns a sort key that puts `layers/2` before `layers/10`."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)]


def hole_paths(tree: Any) -> list[Path]:
    """Returns the paths of `None` and `optax.MaskedNode`, which stand in for missing parts of a tree."""
    holes = jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_hole)
    return [_strings(keys) for keys, node in holes if _is_hole(node)]


def join(path: Path) -> str:
    """Joins a path into one string, `layers/0/kernel`; the path of a bare array is `.`."""
    return "/".join(path) or "."


def starts_with(path: Path, prefix: Path) -> bool:
    return path[: len(prefix)] == prefix


def nearest(path: Path, candidates: Iterable[Path]) -> str:
    """Returns, for an error message, the candidates most like `path`."""
    names = [join(candidate) for candidate in candidates]
    close: Sequence[str] = difflib.get_close_matches(join(path), names, n=3, cutoff=0.5) or names[:3]
    return ", ".join(repr(name) for name in close) or "none (the tree has no leaves)"


def check_same_leaves(params: Any, other: Any, name: str) -> None:
    """Raises `ValueError` if the leaves or shapes of `other` (called `name`) are not those of `params`."""
    paths, other_paths = leaf_paths(params), leaf_paths(other)
    if paths != other_paths:
        odd = sorted(set(paths) ^ set(other_paths))
        names = ", ".join(repr(join(path)) for path in odd[:3]) or "their order"
        extra = [leaf for path, leaf in zip(paths, jax.tree.leaves(params), strict=True) if path in odd]
        unfiltered = extra and not any(map(_is_floating, extra))
        hint = "; pass an Equinox model as eqx.filter(model, eqx.is_inexact_array)" if unfiltered else ""
        raise ValueError(f"{name} and params must have the same leaves; they differ in {names}{hint}")
    for path, leaf, other_leaf in zip(paths, jax.tree.leaves(params), jax.tree.leaves(other), strict=True):
        if jnp.shape(leaf) != jnp.shape(other_leaf):
            raise ValueError(
                f"{name} and params must have the same shapes; at {join(path)!r} they have"
                f" {jnp.shape(other_leaf)} and {jnp.shape(leaf)}"
            )


def refuse_twice(names: Iterable[str], message: str = "two leaves of the parameters are called {}") -> None:
    """Raises `ValueError` if a name occurs twice."""
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(message.format(repr(name)))


def _strings(keys: tuple[Any, ...]) -> Path:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in keys)


def _is_hole(node: Any) -> bool:
    return node is None or isinstance(node, optax.MaskedNode)


def _is_box(node: Any) -> bool:
    """Tells whether a node of somebody's own type holds one leaf and nothing else."""
    if isinstance(node, Mapping | tuple | list | None):
        return False
    structure = jax.tree.structure(node)
    return structure.num_leaves == 1 and structure.num_nodes == 2


def is_flax_variable(node: Any) -> bool:
    # By name, because this library does not import flax: `nnx.Variable`, and `AxisMetadata`, the base of
    # Linen's boxes such as `nn.Partitioned`.
    return any(
        cls.__name__ in ("Variable", "AxisMetadata") and cls.__module__.startswith("flax.")
        for cls in type(node).__mro__
    )


def _is_floating(leaf: Any) -> bool:
    return jnp.issubdtype(getattr(leaf, "dtype", bool), jnp.inexact)
