"""A table that says what `layca` does to every leaf."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from layca_optax._descent import uphill
from layca_optax._layca import LaycaState
from layca_optax._norms import vector_norms, visible_zeros
from layca_optax._paths import join, leaf_paths, natural_order
from layca_optax._rates import check_rates, match_rates
from layca_optax._rules import (
    Axes,
    Rotate,
    as_array,
    check_rule,
    fewest_axes,
    is_inexact,
    rotating_leaves,
    vector_axes,
    vectors_shape,
    why_not,
)
from layca_optax._state import by_path

# One misspelt path can leave every leaf of a network without a rate.
_MOST_PROBLEMS = 6


def describe(
    params: Any,
    *,
    rotate: Rotate = "layer",
    learning_rate: Any = None,
    optimizer: optax.GradientTransformation | None = None,
) -> str:
    """Describes the parameters in a table: one row per leaf, with what `layca` does to it.

    Args:
      params: arrays, or `jax.ShapeDtypeStruct` leaves (for which zero vectors cannot be found).
      rotate: as in `layca`.
      learning_rate: as in `layca`; schedules are shown at step 0. Without it the table has no rate column.
      optimizer: the whole optimizer. `describe` takes a step with a random gradient to check that it does
        not climb the loss, as `check_descent` does, and checks that its `layca` has the rule `rotate`. The
        rule and the rates in the table are those of the arguments, not those of the optimizer.

    Returns:
      Lines of text. First a table, in the order of `rotation_report`. Its columns are path, shape, vectors
      (how many the leaf holds), rule and rate. The rule is `rotates`; `plain step`, with the reason if the
      leaf has enough axes to rotate; `untouched`, also for functions and other leaves that are not arrays; or
      `starts at zero` for a leaf that `layca` would refuse. Then the number of parameters. Last, probable
      mistakes, with the nearest matches: nothing rotates, a rate that matches no parameter, a parameter
      without a rate (`layca` refuses it unless `others` trains it), a rate of the wrong shape or above 1,
      leaves that are pieces inside `jax.shard_map`, an optimizer that climbs the loss or rotates other
      vectors.

    Raises:
      ValueError: as `layca` does for unknown rules and for rates that are negative, NaN or infinite.

    Example:
      >>> import jax.numpy as jnp
      >>> from layca_optax import describe
      >>> print(describe({"bias": jnp.zeros(10), "kernel": jnp.ones((784, 10))}, learning_rate=0.1))
      path    shape      vectors  rule        rate
      bias    10               -  plain step  0.1
      kernel  784 x 10         1  rotates     0.1
      7,850 parameters, 7,840 of them rotate in 1 vector
    """
    check_rule(rotate)
    axes = vector_axes(rotate, params)
    leaves = [as_array(leaf) for leaf in jax.tree.leaves(params)]
    trains = [is_inexact(leaf) for leaf in leaves]
    rates: list[Any] = [None] * len(leaves)
    problems: list[str] = []
    if learning_rate is not None:
        check_rates(learning_rate)
        rates, problems = match_rates(learning_rate, params, axes, trains, jnp.zeros([], jnp.int32))

    paths = [join(path) for path in leaf_paths(params)]
    rows = []
    for path, leaf, ax, rate, train in zip(paths, leaves, axes, rates, trains, strict=True):
        vectors = "-" if ax is None else f"{_num_vectors(ax):,}"
        rule = _rule(leaf, ax, why_not(rotate, path, leaf) if train else None)
        rows.append([path, _show_shape(leaf), vectors, rule, _show_rate(rate, train)])
    # The order of `rotation_report`.
    rows.sort(key=lambda row: natural_order(row[0]))
    rows.insert(0, ["path", "shape", "vectors", "rule", "rate"])
    if learning_rate is None:
        rows = [row[:-1] for row in rows]
    if all(ax is None for ax in axes):
        problems.insert(0, _why_nothing_rotates(rotate, paths, leaves))
    problems += _too_large(paths, axes, rates)
    problems += _pieces_of_vectors(paths, leaves, axes)
    if optimizer is not None:
        # Functions are left out, as by `eqx.filter`.
        arrays = jax.tree.map(lambda x: x if hasattr(as_array(x), "shape") else None, params)
        problems += _wrong_direction(optimizer, arrays) or _another_rule(optimizer, arrays, rotate)
    if len(problems) > _MOST_PROBLEMS:
        problems[_MOST_PROBLEMS:] = [f"and {len(problems) - _MOST_PROBLEMS:,} more like the last"]
    return "\n".join([*_aligned(rows), _summary(leaves, axes), *(f"! {problem}" for problem in problems)])


def _num_vectors(axes: Axes) -> int:
    return math.prod(vectors_shape(axes))


def _rule(leaf: Any, axes: Axes | None, reason: str | None) -> str:
    if not is_inexact(leaf):
        return "untouched"
    if axes is None:
        return f"plain step ({reason})" if reason else "plain step"
    if not isinstance(leaf, jax.ShapeDtypeStruct):
        zeros = visible_zeros(vector_norms(jnp.asarray(leaf), axes))
        if zeros:
            return f"starts at zero ({zeros:,} of {_num_vectors(axes):,})" if axes else "starts at zero"
    return "rotates"


def _show_shape(leaf: Any) -> str:
    # Equinox models have activation functions among their leaves.
    if not hasattr(leaf, "shape"):
        return "-"
    return " x ".join(map(str, leaf.shape)) or "scalar"


def _show_rate(rate: Any, trains: bool) -> str:
    if rate is None:
        return "none" if trains else "-"
    if isinstance(rate, jax.core.Tracer):
        return "traced"
    low, high = float(np.min(rate)), float(np.max(rate))
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"


def _summary(leaves: list[Any], axes: list[Axes | None]) -> str:
    total = sum(math.prod(leaf.shape) for leaf in leaves if hasattr(leaf, "shape"))
    rotating = [(leaf, ax) for leaf, ax in zip(leaves, axes, strict=True) if ax is not None]
    entries = sum(math.prod(leaf.shape) for leaf, _ in rotating)
    vectors = sum(_num_vectors(ax) for leaf, ax in rotating)
    return f"{total:,} parameters, {entries:,} of them rotate in {_vectors(vectors)}"


def _vectors(count: int) -> str:
    return f"{count:,} vector{'s' * (count != 1)}"


def _pieces_of_vectors(paths: list[str], leaves: list[Any], axes: list[Axes | None]) -> list[str]:
    """Warns of rotating leaves that may differ between devices, inside `shard_map`."""
    manual = jax.sharding.get_abstract_mesh().manual_axes
    rotating = [(path, leaf) for path, leaf, ax in zip(paths, leaves, axes, strict=True) if ax is not None]
    pieces = [repr(path) for path, leaf in rotating if manual and _varies(leaf)]
    if not pieces:
        return []
    more = f" and {len(pieces) - 3:,} more leaves" if len(pieces) > 3 else ""
    return [
        f"inside shard_map over {', '.join(map(repr, manual))}, {', '.join(pieces[:3])}{more} may differ"
        " between devices: if they are pieces of one leaf, each piece would be a separate vector; call"
        " layca outside shard_map"
    ]


def _varies(leaf: Any) -> bool:
    if not isinstance(leaf, jax.core.Tracer):
        return False
    # The attribute's name depends on the version of jax.
    kind = jax.typeof(leaf)
    return bool(
        getattr(getattr(kind, "manual_axis_type", None), "varying", None) or getattr(kind, "vma", None)
    )


def _too_large(paths: list[str], axes: list[Axes | None], rates: list[Any]) -> list[str]:
    """Warns of angles above 45 degrees, as from a power whose minus sign was forgotten."""
    rotating = [(path, rate) for path, ax, rate in zip(paths, axes, rates, strict=True) if ax is not None]
    known = [(path, rate) for path, rate in rotating if not isinstance(rate, jax.core.Tracer | None)]
    large = [f"{np.max(rate):.4g} at {path!r}" for path, rate in known if np.max(rate) > 1]
    if not large:
        return []
    more = f", and {len(large) - 1:,} more" if len(large) > 1 else ""
    return [f"a learning rate above 1 turns by more than 45 degrees per step: {large[0]}{more}"]


def _another_rule(optimizer: optax.GradientTransformation, params: Any, rotate: Rotate) -> list[str]:
    """Compares the vectors in the states of `layca` in the optimizer with those that `rotate` gives."""
    is_state = lambda node: isinstance(node, LaycaState)
    states = jax.tree.leaves(jax.eval_shape(optimizer.init, params), is_leaf=is_state)
    theirs = {
        name: jax.tree.leaves(norm)[0].shape
        for state in filter(is_state, states)
        for name, norm in by_path(state.initial_norm).items()
    }
    rotating = rotating_leaves(params, vector_axes(rotate, params))
    ours = {name: vectors_shape(ax) for name, _, ax in rotating}
    if not theirs or theirs == ours:
        return []
    name = next(name for name in ours | theirs if ours.get(name) != theirs.get(name))
    vectors = lambda shapes: _vectors(math.prod(shapes[name])) if name in shapes else "none"
    return [
        f"the optimizer's layca turns other vectors than this table shows: {name!r} has {vectors(theirs)}"
        f" there and {vectors(ours)} here. Is rotate= the same for both?"
    ]


def _wrong_direction(optimizer: optax.GradientTransformation, arrays: Any) -> list[str]:
    """Takes a step with a random gradient: the sign of the update depends on neither weights nor loss."""
    # An unusual seed: the weights may have been drawn with 0 or 1, and a step parallel to them turns nothing.
    random = np.random.default_rng(180601603)
    draw = lambda x: jnp.asarray(random.normal(size=x.shape) * is_inexact(x)).astype(x.dtype)
    weights = jax.tree.map(lambda x: draw(x) if isinstance(x, jax.ShapeDtypeStruct) else x, arrays)
    gradients = jax.tree.map(lambda x: draw(as_array(x)), arrays)
    try:
        problem = uphill(optimizer, weights, gradients)
    except ValueError as error:
        problem = str(error)
    return [problem] if problem else []


def _why_nothing_rotates(rotate: Rotate, paths: list[str], leaves: list[Any]) -> str:
    if isinstance(rotate, str):
        reason = f"{rotate!r} needs floating leaves with {fewest_axes(rotate)} or more axes; the nearest are"
        asked = [(path, leaf) for path, leaf in zip(paths, leaves, strict=True) if hasattr(leaf, "shape")]
    else:
        reason = "the function returned None for all floating leaves, those with the most axes being"
        asked = [(path, leaf) for path, leaf in zip(paths, leaves, strict=True) if is_inexact(leaf)]
    if not asked:
        return "NOTHING ROTATES: there are no floating leaves"
    nearest = sorted(asked, key=lambda pair: -pair[1].ndim)[:3]
    return f"NOTHING ROTATES: {reason} {', '.join(_with_axes(rotate, *pair) for pair in nearest)}"


def _with_axes(rotate: Rotate, path: str, leaf: Any) -> str:
    axes = "1 axis" if leaf.ndim == 1 else f"{leaf.ndim} axes"
    but = why_not(rotate, path, leaf) if is_inexact(leaf) else str(leaf.dtype)
    return f"{path!r} ({axes}, but {but})" if but else f"{path!r} ({axes})"


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    numeric = {rows[0].index("vectors")}
    return [
        "  ".join(
            cell.rjust(width) if i in numeric else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
