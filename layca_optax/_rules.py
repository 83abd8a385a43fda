"""Which leaves rotate, and as how many weight vectors."""

import difflib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from layca_optax._paths import join, leaf_paths

Axes = tuple[int, ...]
Rotate = str | Callable[[str, Any], Axes | None]


def vector_axes(rotate: Rotate, tree: Any) -> list[Axes | None]:
    """For every leaf the axes that enumerate its weight vectors, or `None` if it does not rotate.

    Raises:
      ValueError: an unknown rule; a function that returns something else than
        `None` or distinct axes of the leaf; a complex leaf that would rotate.
    """
    rule = _named_rule(rotate) if isinstance(rotate, str) else rotate
    result: list[Axes | None] = []
    for path, leaf in zip(leaf_paths(tree), jax.tree.leaves(tree), strict=True):
        name = join(path)
        axes = rule(name, leaf) if is_inexact(leaf) else None
        if axes is not None:
            axes = _ascending(name, axes, leaf.ndim)
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


# For every name the fewest axes that a leaf needs to rotate, and which of its axes enumerate vectors.
_RULES: dict[str, tuple[int, Callable[[int], Axes]]] = {
    "layer": (2, lambda ndim: ()),
    "stacked_layer": (3, lambda ndim: (0,)),
    "neuron": (2, lambda ndim: (ndim - 1,)),
}


def fewest_axes(name: str) -> int:
    """How many axes a leaf needs to rotate under the rule of this name."""
    return _RULES[name][0]


def _named_rule(name: str) -> Callable[[str, Any], Axes | None]:
    if name in _RULES:
        fewest, enumerating = _RULES[name]
        return lambda path, leaf: enumerating(leaf.ndim) if leaf.ndim >= fewest else None
    close = difflib.get_close_matches(name, _RULES, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"no rule for rotate is called {name!r}, only {', '.join(map(repr, _RULES))}{hint}")


def _ascending(name: str, axes: Any, ndim: int) -> Axes:
    is_axes = isinstance(axes, tuple) and all(isinstance(axis, int) for axis in axes)
    if not is_axes or any(not -ndim <= axis < ndim for axis in axes):
        raise ValueError(
            f"rotate returned {axes!r} for {name!r}; it must return None (does not rotate) or a tuple"
            f" of axes of a leaf with {ndim} axes: () makes the whole leaf one vector"
        )
    ascending = tuple(sorted(axis % ndim for axis in axes))
    if len(set(ascending)) < len(ascending):
        raise ValueError(f"rotate returned {axes!r} for {name!r}: an axis stands there twice")
    return ascending
