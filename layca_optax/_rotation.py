"""How far layers have turned."""

import jax
import jax.numpy as jnp
import optax

from layca_optax._paths import check_same_leaves, join, leaf_paths
from layca_optax._rules import Axes, Rotate, vector_axes
from layca_optax._vectors import compute_dtype, expand_inner, sum_vectors, vector_norms


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
    # Brought to the reference's length and only then to 1: equal vectors are exactly 0 apart, and two
    # references have no scaled copy of w in common that XLA would store.
    difference = (reference - w * (m / n)) / m
    return sum_vectors(difference * difference, axes) / 2


def norms_near(x: jax.Array, near: jax.Array, axes: Axes) -> jax.Array:
    """As `vector_norms`. Norms that are not far from `near` keep the squares in range, so that it takes one
    look at the entries, not two.
    """
    size = jnp.where(near > 0, near, 1)
    scaled = x.astype(compute_dtype(x)) / expand_inner(size, x.ndim, axes)
    return size * jnp.sqrt(sum_vectors(scaled * scaled, axes))
