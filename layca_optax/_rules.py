"""Decides which leaves rotate, and as how many weight vectors."""

import difflib
import math
import sys
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from layca_optax._paths import join, leaf_paths, refuse_twice

# Pairs (axis, pieces), ascending: the axes that enumerate the weight vectors of a leaf, and into how many
# equal pieces each is cut. If every index along an axis is a separate vector, `pieces` is the axis' length.
Axes = tuple[tuple[int, int], ...]
Rule = Callable[[str, Any], tuple[int | tuple[int, int], ...] | None]
Rotate = Literal["layer", "stacked_layer", "neuron"] | Rule


def vector_axes(rotate: Rotate, tree: Any) -> list[Axes | None]:
    """Returns, per leaf, the axes that enumerate its weight vectors, or `None` if it does not rotate.

    Raises:
      ValueError: the rule is unknown; a function returns anything but `None` or distinct axes of the leaf,
        possibly cut into equal pieces, or asks for vectors of one entry; a leaf that would rotate is complex
        or has fewer than 16 bits per entry.
    """
    rule = _named_rule(rotate) if isinstance(rotate, str) else rotate
    result: list[Axes | None] = []
    for path, leaf in zip(leaf_paths(tree), map(as_array, jax.tree.leaves(tree)), strict=True):
        name = join(path)
        # A leaf without entries has nothing to turn.
        axes = rule(name, leaf) if is_inexact(leaf) and math.prod(leaf.shape) else None
        if axes is not None:
            axes = _ascending(name, axes, leaf.shape)
            _refuse_what_cannot_turn(name, leaf, axes)
        result.append(axes)
    return result


def is_inexact(leaf: Any) -> bool:
    """Tells whether a leaf trains: floats and complex numbers do; integers, booleans, keys, float0 do not."""
    leaf = as_array(leaf)
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)


def as_array(leaf: Any) -> Any:
    """Converts Python numbers to scalar arrays; returns other leaves unchanged."""
    return jnp.asarray(leaf) if isinstance(leaf, bool | int | float | complex) else leaf


def check_rule(rotate: Rotate) -> None:
    """Raises `ValueError` if `rotate` is neither a known name nor a function."""
    if isinstance(rotate, str):
        _named_rule(rotate)
    elif not callable(rotate):
        raise ValueError(
            f"rotate must be one of {', '.join(map(repr, _RULES))} or a function"
            f" (path, leaf) -> None or a tuple of axes, not {rotate!r}"
        )


def refuse_flat(owner: str, rotate: Rotate, params: Any) -> None:
    """Raises `ValueError` for a named rule inside `optax.flatten`, where it turns nothing."""
    leaves = jax.tree.leaves(params)
    if not isinstance(rotate, str) or leaf_paths(params) != [()] or jnp.ndim(leaves[0]) != 1:
        return
    # A flattened array looks like any other, so search the call stack for `optax.flatten`.
    frame, flatten = sys._getframe(), optax.flatten.__code__.co_filename
    while frame is not None and frame.f_code.co_filename != flatten:
        frame = frame.f_back
    if frame is not None:
        raise ValueError(
            f"optax.flatten joins all leaves into one array with one axis, of which rotate={rotate!r} turns"
            f" nothing. Take {owner} out of optax.flatten. (With rotate=lambda path, leaf: () all leaves"
            " would turn as one vector.)"
        )


def as_vectors(leaf: jax.Array, axes: Axes) -> tuple[jax.Array, tuple[int, ...]]:
    """Cuts axes into their pieces; returns the reshaped leaf and those of its axes that enumerate vectors."""
    shape, enumerating, pieces = [], [], dict(axes)
    for axis, length in enumerate(leaf.shape):
        number = pieces.get(axis)
        if number is not None:
            enumerating.append(len(shape))
        shape += [length] if number is None or number == length else [number, length // number]
    return leaf.reshape(shape), tuple(enumerating)


def rotating_leaves(tree: Any, axes: list[Axes | None]) -> list[tuple[str, int, Axes]]:
    """Returns the path, the position and the axes of every leaf that rotates.

    Raises:
      ValueError: two of them have the same path, as in `{"a/b": x, "a": {"b": y}}`.
    """
    named = enumerate(zip(leaf_paths(tree), axes, strict=True))
    result = [(join(path), i, ax) for i, (path, ax) in named if ax is not None]
    refuse_twice(name for name, _, _ in result)
    return result


def vectors_shape(axes: Axes) -> tuple[int, ...]:
    """Returns the shape of an array that holds one value per vector."""
    return tuple(pieces for _, pieces in axes)


# For each name: how many axes a leaf needs to rotate, and which of its axes enumerate vectors.
_RULES: dict[str, tuple[int, Callable[[int], tuple[int, ...]]]] = {
    "layer": (2, lambda ndim: ()),
    "stacked_layer": (3, lambda ndim: (0,)),
    "neuron": (2, lambda ndim: (ndim - 1,)),
}


# The size of these leaves matters, and most of them start at zero. Some have several axes: convolution biases
# in Equinox, attention biases in Flax, norm scales and offsets in Haiku.
_NAMES_THAT_STAY = ("bias", "scale", "offset")


def fewest_axes(name: str) -> int:
    """Returns how many axes a leaf needs to rotate under the rule of this name."""
    return _RULES[name][0]


def why_not(rotate: Rotate | str, path: str, leaf: Any) -> str | None:
    """Says why a leaf with enough axes does not rotate under a named rule; `None` for other leaves."""
    if not isinstance(rotate, str) or leaf.ndim < fewest_axes(rotate):
        return None
    last = path.rpartition("/")[2]
    if last in _NAMES_THAT_STAY:
        return f"named {last}"
    size, enumerating = math.prod(leaf.shape), _RULES[rotate][1](leaf.ndim)
    if size == 0:
        return "no entries"
    return "one entry per vector" if size == math.prod(leaf.shape[axis] for axis in enumerating) else None


def rule_without(rotate: Rotate, names: list[str]) -> str:
    """Says, for an error message, how to change the rule so that these leaves do not rotate."""
    if not isinstance(rotate, str):
        return "let `rotate` return None for them"
    axes = {"layer": "()", "stacked_layer": "(0,)", "neuron": "(leaf.ndim - 1,)"}[rotate]
    return (
        f"rotate=lambda path, leaf: {axes} if leaf.ndim >= {fewest_axes(rotate)} and path not in {names}"
        f" and path.split('/')[-1] not in {[*_NAMES_THAT_STAY]} else None"
    )


def _named_rule(name: str) -> Rule:
    if name in _RULES:
        fewest, enumerating = _RULES[name]
        return lambda path, leaf: (
            None if leaf.ndim < fewest or why_not(name, path, leaf) else enumerating(leaf.ndim)
        )
    close = difflib.get_close_matches(name, _RULES, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    known = ", ".join(map(repr, _RULES))
    raise ValueError(f"rotate must be one of {known} or a function, not {name!r}{hint}")


def _refuse_what_cannot_turn(name: str, leaf: Any, axes: Axes) -> None:
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        raise ValueError(
            f"{name!r} is complex ({leaf.dtype}) and would rotate; an angle between complex"
            " vectors is not defined here. Let `rotate` return None for it."
        )
    if jnp.finfo(leaf.dtype).bits < 16:
        raise ValueError(
            f"{name!r} would rotate, but its dtype {leaf.dtype} is too coarse for small angles. Keep a copy"
            " in float32 for the optimizer and cast it in the loss, or let `rotate` return None for it."
        )
    if math.prod(leaf.shape) == math.prod(vectors_shape(axes)):
        raise ValueError(
            f"rotate makes vectors of one entry of {name!r}, whose shape is {leaf.shape}; a single number has"
            " no direction to turn. Let `rotate` return None for it."
        )


def _ascending(name: str, axes: Any, shape: tuple[int, ...]) -> Axes:
    def refuse(why: str) -> ValueError:
        return ValueError(f"rotate returned {axes!r} for {name!r} of shape {shape}{why}")

    if not isinstance(axes, tuple) or not all(map(_is_entry, axes)):
        raise refuse(
            "; it must return None (does not rotate) or a tuple of axes: () makes the whole leaf one vector,"
            " an entry (axis, pieces) cuts an axis into equal pieces"
        )
    result = []
    for entry in axes:
        axis, pieces = entry if isinstance(entry, tuple) else (entry, None)
        if not -len(shape) <= axis < len(shape):
            raise refuse(f": it has no axis {axis}")
        length = shape[axis]
        if pieces is not None and (pieces < 1 or length % pieces):
            raise refuse(f": an axis of length {length} cannot be cut into {pieces} equal pieces")
        result.append((axis % len(shape), length if pieces is None else pieces))
    if len({axis for axis, _ in result}) < len(result):
        raise refuse(": it names an axis twice")
    return tuple(sorted(result))


def _is_entry(entry: Any) -> bool:
    is_int = lambda x: isinstance(x, int) and not isinstance(x, bool)
    return is_int(entry) or (isinstance(entry, tuple) and len(entry) == 2 and all(map(is_int, entry)))
