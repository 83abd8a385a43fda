"""What would happen to every leaf, in words."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from layca_optax._paths import join, leaf_paths
from layca_optax._rates import check_rates, rates_for_leaves
from layca_optax._rules import Axes, Rotate, check_rule, is_inexact, vector_axes
from layca_optax._sphere import vector_norms


def describe(params: optax.Params, *, rotate: Rotate = "layer", learning_rate: Any = None) -> str:
    """A table of the parameters: one row a leaf, with what `layca` does to it.

    Args:
      params: arrays, or `jax.ShapeDtypeStruct`s (then vectors that start at zero cannot be found).
      rotate: as in `layca`.
      learning_rate: as in `layca`; schedules are shown at step 0. Without it there is no such column.

    Returns:
      Lines of text with the columns path, shape, vectors (how many the leaf holds), rule (`rotates`,
      `plain step`, `untouched`, or `starts at zero` for a leaf that `layca` would refuse) and rate; last, the
      number of parameters and, if so, that nothing rotates.

    Raises:
      ValueError: as `layca` does for rules and rates.

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
    leaves = jax.tree.leaves(params)
    rates: list[Any] = [None] * len(leaves)
    if learning_rate is not None:
        check_rates(learning_rate)
        trains = [is_inexact(leaf) for leaf in leaves]
        rates = rates_for_leaves(learning_rate, params, axes, trains, jnp.zeros([], jnp.int32))

    rows = [["path", "shape", "vectors", "rule", "rate"]]
    for path, leaf, ax, rate in zip(leaf_paths(params), leaves, axes, rates, strict=True):
        vectors = "-" if ax is None else f"{_num_vectors(leaf, ax):,}"
        shape = " x ".join(map(str, leaf.shape)) or "scalar"
        rows.append([join(path), shape, vectors, _rule(leaf, ax), _show_rate(rate)])
    if learning_rate is None:
        rows = [row[:-1] for row in rows]
    return "\n".join([*_aligned(rows), _summary(leaves, axes)])


def _num_vectors(leaf: Any, axes: Axes) -> int:
    return int(np.prod([leaf.shape[axis] for axis in axes], dtype=int))


def _rule(leaf: Any, axes: Axes | None) -> str:
    if axes is None:
        return "plain step" if is_inexact(leaf) else "untouched"
    if not isinstance(leaf, jax.ShapeDtypeStruct | jax.core.Tracer):
        zeros = int(np.sum(np.asarray(vector_norms(jnp.asarray(leaf), axes)) == 0))
        if zeros:
            return f"starts at zero ({zeros:,} of {_num_vectors(leaf, axes):,})" if axes else "starts at zero"
    return "rotates"


def _show_rate(rate: Any) -> str:
    if rate is None:
        return "-"
    if isinstance(rate, jax.core.Tracer):
        return "traced"
    low, high = float(jnp.min(rate)), float(jnp.max(rate))
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"


def _summary(leaves: list[Any], axes: list[Axes | None]) -> str:
    total = sum(int(np.prod(leaf.shape)) for leaf in leaves)
    rotating = [(leaf, ax) for leaf, ax in zip(leaves, axes, strict=True) if ax is not None]
    if not rotating:
        return f"{total:,} parameters; NOTHING ROTATES under this rule"
    entries = sum(int(np.prod(leaf.shape)) for leaf, _ in rotating)
    vectors = sum(_num_vectors(leaf, ax) for leaf, ax in rotating)
    return f"{total:,} parameters, {entries:,} of them rotate in {vectors:,} vector{'s' * (vectors != 1)}"


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
