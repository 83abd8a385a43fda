"""How far layers have turned."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax

from layca_optax._paths import check_same_leaves, join, leaf_paths
from layca_optax._rules import Axes, Rotate, vector_axes
from layca_optax._vectors import (
    compute_dtype,
    expand_inner,
    sample_vectors,
    scale_to_unit_size,
    sum_vectors,
    sum_vectors_together,
    vector_norms,
)


def layer_rotation(
    params: optax.Params, reference: optax.Params, *, rotate: Rotate = "layer"
) -> dict[str, jax.Array]:
    r"""The cosine distance of every rotating layer from a reference, usually its initialisation.

    .. math:: 1 - \cos(w, r) = \tfrac{1}{2} \left\| \frac{w}{\|w\|} - \frac{r}{\|r\|} \right\|^2

    Computed as on the right, which is accurate for the smallest angles too. 0: not turned; 1: orthogonal;
    2: reversed. Plotted once an epoch, this is the paper's layer-wise angle deviation curve. Works on
    parameters that were trained with any optimizer.

    Args:
      params: the parameters now.
      reference: parameters with the same leaves. Keep a copy: a train step that donates its
        parameters destroys them.
      rotate: which leaves rotate and as how many vectors, as in `layca`.

    Returns:
      A dictionary from the leaf's path (`"layers/0/kernel"`) to its cosine distance, in at least float32:
      a scalar for a leaf that is one vector, an array shaped like the enumerated axes otherwise. NaN where
      one of the vectors is zero and has no direction.

    Raises:
      ValueError: the two trees have different leaves or shapes; an unknown rule.

    Example:
      >>> import jax.numpy as jnp
      >>> from layca_optax import layer_rotation
      >>> before = {"kernel": jnp.array([[1.0, 0.0]]), "bias": jnp.zeros(2)}
      >>> after = {"kernel": jnp.array([[3.0, 3.0]]), "bias": jnp.ones(2)}
      >>> print({path: f"{distance:.4f}" for path, distance in layer_rotation(after, before).items()})
      {'kernel': '0.2929'}

    References:
      Carbonnelle and De Vleeschouwer, `On layer-level control of DNN training and its impact on
      generalization <https://arxiv.org/abs/1806.01603>`_, 2018, Section 5.3 and Figure 3.
    """
    check_same_leaves(params, reference, "reference")
    leaves = zip(
        leaf_paths(params),
        map(jnp.asarray, jax.tree.leaves(params)),
        map(jnp.asarray, jax.tree.leaves(reference)),
        vector_axes(rotate, params),
        strict=True,
    )
    return {
        join(path): cosine_distance(w, vector_norms(w, axes), r, vector_norms(r, axes), axes)
        for path, w, r, axes in leaves
        if axes is not None
    }


def cosine_distance(
    w: jax.Array, norms: jax.Array, reference: jax.Array, reference_norms: jax.Array, axes: Axes
) -> jax.Array:
    """As in `layer_rotation`, of vectors whose norms are known; shaped like the enumerated axes."""
    w, reference = w.astype(compute_dtype(w)), reference.astype(compute_dtype(reference))
    n, m = (expand_inner(x, w.ndim, axes) for x in (norms, reference_norms))
    # Brought to the reference's length and only then to 1: equal vectors are exactly 0 apart.
    difference = (reference - w * (m / n)) / m
    return sum_vectors(difference * difference, axes) / 2


def measure_step(
    weights: jax.Array,
    new_weights: Callable[[jax.Array], jax.Array],
    initial: jax.Array,
    initial_norms: jax.Array,
    axes: Axes,
) -> tuple[jax.Array, jax.Array]:
    r"""The cosine distances of the new weights from the initial ones, and their angles with the old ones.

    For a vector :math:`w` of norm :math:`n`, another :math:`r` of norm :math:`m` and any :math:`b > 0`,

    .. math:: 1 - \cos(w, r) = \frac{\|r - b w\|^2 - (m - b n)^2}{2 b m n}

    which keeps its digits if :math:`b` is not far from :math:`m / n`. A sample of the entries tells that well
    enough: if :math:`r` points where :math:`w` does but for a small difference, so do their samples.

    Where nothing is sampled, norms are exact and :math:`b` is their ratio.

    `new_weights` is called with what was found before: first for the sample, then for the rest. It need not
    round them to the dtype of the weights.
    """
    expanded = lambda x: expand_inner(x, weights.ndim, axes)
    # With initial norms near 1 the squares stay in range. What several sums have in common, even a number as
    # often as there are weights, XLA would store on CPUs; it cannot know that norms are never negative.
    initial_norms = initial_norms.astype(compute_dtype(weights))
    scale = scale_to_unit_size(initial_norms)
    unit = lambda i: expanded(jnp.where(initial_norms < -i, 0, scale))
    square = lambda x, i: (x.astype(scale.dtype) * unit(i)) ** 2
    new = lambda seen: _rounded(new_weights(seen), weights.dtype).astype(scale.dtype)

    arrays = new(initial_norms), weights, initial
    sample = sample_vectors(arrays, axes)
    whole = sample is arrays
    # More terms at a time would be too long a loop for a compiler.
    sums = partial(sum_vectors_together, axes=axes, terms=8)
    first_norms = initial_norms * scale
    needed = sample[:2] if whole else sample
    new_norms, old_norms, *others = map(jnp.sqrt, sums(tuple(square(x, i) for i, x in enumerate(needed))))
    ratios = [
        jnp.where(m == new_norms, 1, m / new_norms) for m in (first_norms if whole else others[0], old_norms)
    ]
    if not whole:
        # The entries may be unlike the others; a ratio that is this far off costs one digit.
        ratios = [jnp.clip(ratio, 1 / 16, 16) for ratio in ratios]
    new_ones = new(ratios[0] + ratios[1])
    squares = [
        square(r.astype(scale.dtype) - new_ones * expanded(b), i)
        for i, r, b in zip((3, 4), (initial, weights), ratios, strict=True)
    ]
    if not whole:
        squares += [square(new_ones, 5), square(weights, 6)]
    to_initial, to_old, *rest = sums(tuple(squares))
    if not whole:
        new_norms, old_norms = map(jnp.sqrt, rest)
    twice_from_init = _twice_cosine_distance(to_initial, first_norms, ratios[0] * new_norms)
    twice_last_step = _twice_cosine_distance(to_old, old_norms, ratios[1] * new_norms)
    return twice_from_init / 2, 2 * jnp.arcsin(jnp.sqrt(twice_last_step) / 2)


def _twice_cosine_distance(squared_difference: jax.Array, m: jax.Array, n: jax.Array) -> jax.Array:
    """Of vectors whose norms are `m` and `n`."""
    twice = jnp.clip((squared_difference - (m - n) ** 2) / (m * n), 0, 4)
    return jnp.where((m > 0) & (n > 0), twice, jnp.nan)


def _rounded(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Rounded to the dtype, in at least float32.

    XLA may leave out a rounding to 16 bits between two conversions, but not `reduce_precision`. That has no
    subnormal numbers; in float16 they are common enough to be left as they are.
    """
    info, wide = jnp.finfo(dtype), x.astype(jnp.promote_types(dtype, jnp.float32))
    if info.bits >= 32:
        return wide
    rounded = jax.lax.reduce_precision(wide, exponent_bits=info.nexp, mantissa_bits=info.nmant)
    if info.nexp == jnp.finfo(jnp.float32).nexp:
        return rounded
    return jnp.where(jnp.abs(wide) < float(info.smallest_normal), wide, rounded)
