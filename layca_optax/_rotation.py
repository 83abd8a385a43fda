"""How far layers have turned."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from layca_optax._paths import check_same_leaves, join, leaf_paths
from layca_optax._rules import Axes, Rotate, vector_axes
from layca_optax._vectors import (
    compute_dtype,
    expand_inner,
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
    return sum_vectors(_squared_differences(w, norms, reference, reference_norms, axes), axes) / 2


def measure_step(
    weights: jax.Array,
    new_weights: Callable[[jax.Array], jax.Array],
    initial: jax.Array,
    initial_norms: jax.Array,
    axes: Axes,
) -> tuple[jax.Array, jax.Array]:
    """The cosine distances of the new weights from the initial ones, and their angles with the old ones.

    It takes two looks at the new weights, for their norms and for the rest. `new_weights` is called before
    each with what the look before has found; it need not round them to the dtype of the weights.
    """
    # Norms that are not far from the initial ones keep the squares in range. The same in two ways, because
    # of what two sums have in common XLA may make an array as large as the weights.
    size = jnp.where(initial_norms > 0, initial_norms, 1)
    same_size = jnp.where(initial_norms == 0, 1, initial_norms)
    scaled = lambda x, size: x.astype(size.dtype) / expand_inner(size, x.ndim, axes)
    new = scaled(_rounded(new_weights(initial_norms), weights.dtype), size)
    old = scaled(weights, same_size)
    # More terms at a time would be too long a loop for a compiler.
    squares = sum_vectors_together((new * new, old * old), axes, terms=8)
    norms, old_norms = (size * jnp.sqrt(x) for x in squares)
    new = _rounded(new_weights(norms), weights.dtype)
    differences = (
        _squared_differences(new, norms, initial, initial_norms, axes),
        _squared_differences(new, norms, weights, old_norms, axes),
    )
    twice_from_init, twice_last_step = sum_vectors_together(differences, axes, terms=8)
    return twice_from_init / 2, 2 * jnp.arcsin(jnp.minimum(jnp.sqrt(twice_last_step) / 2, 1))


def _squared_differences(
    w: jax.Array, norms: jax.Array, reference: jax.Array, reference_norms: jax.Array, axes: Axes
) -> jax.Array:
    """Of the entries of two directions; their sum is twice the cosine distance."""
    w, reference = w.astype(compute_dtype(w)), reference.astype(compute_dtype(reference))
    n, m = (expand_inner(x, w.ndim, axes) for x in (norms, reference_norms))
    # Brought to the reference's length and only then to 1: equal vectors are exactly 0 apart.
    difference = (reference - w * (m / n)) / m
    return difference * difference


def _rounded(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Rounded to the dtype, in at least float32.

    XLA may leave out a rounding to 16 bits between two conversions, but not `reduce_precision`. That has no
    subnormal numbers; in float16 they are common enough to be left as they are.
    """
    info, wide = jnp.finfo(dtype), x.astype(jnp.promote_types(dtype, jnp.float32))
    if info.bits >= 32:
        return wide
    rounded = jax.lax.reduce_precision(wide, exponent_bits=info.nexp, mantissa_bits=info.nmant)
    return jnp.where(jnp.abs(wide) < float(info.smallest_normal), wide, rounded)
