"""Which leaves rotate, and as how many weight vectors."""

import difflib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from layca_optax._paths import join, leaf_paths, refuse_twice

# The axes that enumerate the weight vectors of a leaf, ascending, each with the number of equal pieces into
# which it is cut: its length for an axis along which every index is a vector of its own.
Axes = tuple[tuple[int, int], ...]
Rule = Callable[[str, Any], tuple[int | tuple[int, int], ...] | None]
Rotate = str | Rule


def vector_axes(rotate: Rotate, tree: Any) -> list[Axes | None]:
    """For every leaf the axes that enumerate its weight vectors, or `None` if it does not rotate.

    Raises:
      ValueError: an unknown rule; a function that returns something else than `None` or distinct axes of the
        leaf, cut into equal pieces; a complex leaf that would rotate.
    """
    rule = _named_rule(rotate) if isinstance(rotate, str) else rotate
    result: list[Axes | None] = []
    for path, leaf in zip(leaf_paths(tree), jax.tree.leaves(tree), strict=True):
        name = join(path)
        axes = rule(name, leaf) if is_inexact(leaf) else None
        if axes is not None:
            axes = _ascending(name, axes, leaf.shape)
            if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
                raise ValueError(
                    f"{name!r} is complex ({leaf.dtype}) and would rotate; an angle between complex"
                    " vectors is not defined here. Let `rotate` return None for it."
                )
        result.append(axes)
    return result


def is_inexact(leaf: Any) -> bool:
    """Floating and complex leaves train; integers, booleans, keys and float0 do not."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)


def check_rule(rotate: Rotate) -> None:
    """Raises at once, before any tree is known, if `rotate` is neither a known name nor a function."""
    if isinstance(rotate, str):
        _named_rule(rotate)
    elif not callable(rotate):
        raise ValueError(
            f"rotate must be one of {', '.join(map(repr, _RULES))} or a function"
            f" (path, leaf) -> None or a tuple of axes, not {rotate!r}"
        )


def as_vectors(leaf: jax.Array, axes: Axes) -> tuple[jax.Array, tuple[int, ...]]:
    """Cuts axes into their pieces: a reshaped leaf, and those of its axes that enumerate vectors."""
    shape, enumerating, pieces = [], [], dict(axes)
    for axis, length in enumerate(leaf.shape):
        number = pieces.get(axis)
        if number is not None:
            enumerating.append(len(shape))
        shape += [length] if number is None or number == length else [number, length // number]
    return leaf.reshape(shape), tuple(enumerating)


def rotating_leaves(tree: Any, axes: list[Axes | None]) -> list[tuple[str, int, Axes]]:
    """The path, the position and the axes of every leaf that rotates.

    Raises:
      ValueError: two of them have one path, as in `{"a/b": x, "a": {"b": y}}`.
    """
    named = enumerate(zip(leaf_paths(tree), axes, strict=True))
    result = [(join(path), i, ax) for i, (path, ax) in named if ax is not None]
    refuse_twice(name for name, _, _ in result)
    return result


def vectors_shape(axes: Axes) -> tuple[int, ...]:
    """The shape of what is one number per vector."""
    return tuple(pieces for _, pieces in axes)


# For every name the fewest axes that a leaf needs to rotate, and which of its axes enumerate vectors.
_RULES: dict[str, tuple[int, Callable[[int], tuple[int, ...]]]] = {
    "layer": (2, lambda ndim: ()),
    "stacked_layer": (3, lambda ndim: (0,)),
    "neuron": (2, lambda ndim: (ndim - 1,)),
}


def fewest_axes(name: str) -> int:
    """How many axes a leaf needs to rotate under the rule of this name."""
    return _RULES[name][0]


def _named_rule(name: str) -> Rule:
    if name in _RULES:
        fewest, enumerating = _RULES[name]
        return lambda path, leaf: enumerating(leaf.ndim) if leaf.ndim >= fewest else None
    close = difflib.get_close_matches(name, _RULES, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"no rule for rotate is called {name!r}, only {', '.join(map(repr, _RULES))}{hint}")


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
        raise refuse(": an axis stands there twice")
    return tuple(sorted(result))


def _is_entry(entry: Any) -> bool:
    is_int = lambda x: isinstance(x, int) and not isinstance(x, bool)
    return is_int(entry) or (isinstance(entry, tuple) and len(entry) == 2 and all(map(is_int, entry)))
