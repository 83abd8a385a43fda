"""How far layers have turned."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from layca_optax._paths import join, leaf_paths
from layca_optax._rules import Axes, Rotate, vector_axes
from layca_optax._sphere import compute_dtype, drop_inner, expand_inner, sum_vectors, vector_norms


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
      ValueError: the two trees have different leaves; an unknown rule.

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
    paths = leaf_paths(params)
    if paths != leaf_paths(reference):
        odd = sorted(set(paths) ^ set(leaf_paths(reference)))
        raise ValueError(
            "params and reference must have the same leaves; they differ in"
            f" {', '.join(repr(join(path)) for path in odd[:3]) or 'their order'}"
        )
    leaves = zip(
        paths, jax.tree.leaves(params), jax.tree.leaves(reference), vector_axes(rotate, params), strict=True
    )
    return {join(path): _cosine_distance(w, r, axes) for path, w, r, axes in leaves if axes is not None}


def _cosine_distance(w: jax.Array, reference: jax.Array, axes: Axes) -> jax.Array:
    difference = _unit(w, axes) - _unit(reference, axes)
    return drop_inner(sum_vectors(difference * difference, axes), axes) / 2


def _unit(x: Any, axes: Axes) -> jax.Array:
    x = jnp.asarray(x)
    return x.astype(compute_dtype(x)) / expand_inner(vector_norms(x, axes), x.ndim, axes)
