"""Measures how far layers have turned."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from layca_optax._floats import at_least_float32, rounded
from layca_optax._norms import vector_norms
from layca_optax._paths import check_same_leaves
from layca_optax._rules import Axes, Rotate, as_vectors, rotating_leaves, vector_axes
from layca_optax._vectors import per_vector, sum_vectors
from layca_optax._xla_cpu import after


def layer_rotation(params: Any, reference: Any, *, rotate: Rotate = "layer") -> dict[str, jax.Array]:
    r"""Computes the cosine distance of every rotating layer from a reference, usually its initial weights.

    .. math:: 1 - \cos(w, r) = \tfrac{1}{2} \left\| \frac{w}{\|w\|} - \frac{r}{\|r\|} \right\|^2

    The right-hand side is used because it is accurate for tiny angles too. The distance is 0 for equal
    directions, 1 for orthogonal and 2 for opposite ones. Plotted once per epoch it is the paper's
    layer-wise angle deviation curve. The parameters may come from any optimizer.

    Args:
      params: the current parameters.
      reference: parameters with the same leaves. Keep a copy of them: a train step that donates its
        parameters deletes them.
      rotate: which leaves rotate and as how many vectors, as in `layca`.

    Returns:
      A dictionary from the leaf's path (`"layers/0/kernel"`) to its cosine distance, in at least float32:
      a scalar for a leaf that is one vector, otherwise an array shaped like the enumerated axes. NaN where
      either vector is zero and has no direction.

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
      Carbonnelle and De Vleeschouwer, 2018 (https://arxiv.org/abs/1806.01603), Section 5.3 and Figure 3.
    """
    check_same_leaves(params, reference, "reference")
    now, then = ([*map(jnp.asarray, jax.tree.leaves(tree))] for tree in (params, reference))
    rotating = rotating_leaves(params, vector_axes(rotate, params))
    return {name: _cosine_distance(now[i], then[i], ax) for name, i, ax in rotating}


def _cosine_distance(weights: jax.Array, reference: jax.Array, axes: Axes) -> jax.Array:
    wide = lambda x: x.astype(at_least_float32(x.dtype))
    (w, plain), (r, _) = as_vectors(wide(weights), axes), as_vectors(wide(reference), axes)
    n, m = (per_vector(vector_norms(x, axes), w, plain) for x in (weights, reference))
    # Scaled to the reference's length and only then to 1, so that equal vectors have distance exactly 0.
    (squares,) = sum_vectors((((r - w * (m / n)) / m) ** 2,), plain)
    return squares / 2


# Compiled, so that leaves of equal shape are traced once.
@partial(jax.jit, static_argnames="axes")
def measure_step(
    weights: jax.Array, update: jax.Array, initial: jax.Array, *norms: jax.Array, axes: Axes
) -> tuple[jax.Array, jax.Array]:
    r"""Measures, in one pass over the weights, how far a step turns every vector of a leaf.

    For the new weights :math:`v`, an older value :math:`r` and any number :math:`b`, let :math:`x = v - b r`
    and :math:`a = b + x \cdot r / r \cdot r`. Then :math:`a r` is the part of :math:`v` along :math:`r`, and
    the part across it has the length

    .. math:: \|v - a r\|^2 = x \cdot x - (x \cdot r)^2 / r \cdot r .

    This subtraction is accurate if b is near a. So b is 1 if r is the weights before the step, and the
    relative norm before the step if r is the initial weights. `norms` are, per vector, the initial norm, its
    inverse (1 for a zero vector) and the relative norm before the step.

    Returns:
      The update; and, along a last axis, each vector's cosine distance from the initial weights, its angle
      with the weights before the step in radians, and its norm relative to the initial one.
    """
    initial_norm, inverse_norm, norm = norms
    dtype = at_least_float32(weights.dtype)
    wide = at_least_float32(dtype, update.dtype)
    new = rounded(weights.astype(wide) + update.astype(wide), weights.dtype)
    (v, plain), (w, _), (w0, _) = (as_vectors(x.astype(dtype), axes) for x in (new, weights, initial))
    each = lambda values: per_vector(values.astype(dtype), w, plain)
    x, x0 = (v - w) * each(inverse_norm), (v - w0 * each(norm)) * each(inverse_norm)
    w, w0 = w * each(inverse_norm), w0 * each(inverse_norm)
    xx, xw, ww, xx0, xw0 = sum_vectors((x * x, x * w, w * w, x0 * x0, x0 * w0), plain)
    along, across, length = _parts(xx, xw, ww, jnp.ones_like(xx))
    angle = jnp.where((ww > 0) & (length > 0), jnp.arctan2(across, along), jnp.nan)
    along, across, norm = _parts(xx0, xw0, jnp.ones_like(xx0), norm.astype(dtype))
    # 1 - cos, but without subtracting nearly equal numbers.
    near, far = across * across / (norm * (norm + jnp.abs(along))), 1 - along / norm
    began = initial_norm > 0
    distance = jnp.where(began & (norm > 0), jnp.where(along > 0, near, far), jnp.nan)
    # With the barrier, one GPU kernel computes all values per vector; without it, several do.
    numbers = [distance, angle, jnp.where(began, norm, jnp.nan)]
    measured = lax.optimization_barrier(jnp.stack(numbers, axis=-1))
    # `after` makes XLA:CPU read the weights before it overwrites them; otherwise it copies them.
    return after(update, measured[..., 2]), measured


def _parts(
    xx: jax.Array, xr: jax.Array, rr: jax.Array, b: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the lengths of the parts of `v = x + b r` along and across r, and the length of v."""
    divisor = jnp.where(rr > 0, rr, 1)
    across = jnp.maximum(xx - xr * xr / divisor, 0)
    along = (b + xr / divisor) * jnp.sqrt(rr)
    return along, jnp.sqrt(across), jnp.sqrt(across + along * along)
