"""How far layers have turned."""

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
    # Brought to the reference's length and only then to 1: equal vectors are exactly 0 apart.
    (squares,) = sum_vectors((((r - w * (m / n)) / m) ** 2,), plain)
    return squares / 2


# Compiled, so that leaves of equal shape are traced once.
@partial(jax.jit, static_argnames="axes")
def measure_step(
    weights: jax.Array, update: jax.Array, initial: jax.Array, *norms: jax.Array, axes: Axes
) -> tuple[jax.Array, jax.Array]:
    r"""Measures what one step does to every vector of a leaf, by one look at everything.

    For the new weights :math:`v`, an older value :math:`r` and any number :math:`b`, let :math:`x = v - b r`.
    With :math:`a = b + x \cdot r / r \cdot r`, its part along :math:`r` is :math:`a r`, and across it

    .. math:: \|v - a r\|^2 = x \cdot x - (x \cdot r)^2 / r \cdot r .

    The difference keeps its digits where b is near a. So b is 1 for the weights before the step, and for the
    initial ones what `norms` has as the last of three: the initial norms, 1 divided by them (1 for a vector
    that was zero), and the norms before the step divided by the initial ones.

    Returns:
      The update, and along a last axis the cosine distances of the new weights from the initial ones, their
      angles with the old ones in radians, and their norms divided by the initial ones.
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
    # 1 - cos, never as a difference of equal numbers.
    near, far = across * across / (norm * (norm + jnp.abs(along))), 1 - along / norm
    began = initial_norm > 0
    distance = jnp.where(began & (norm > 0), jnp.where(along > 0, near, far), jnp.nan)
    # One kernel computes what is one number per vector; else a GPU takes several.
    numbers = [distance, angle, jnp.where(began, norm, jnp.nan)]
    measured = lax.optimization_barrier(jnp.stack(numbers, axis=-1))
    # The weights are read before new ones are written over them; else XLA:CPU would copy them.
    return after(update, measured[..., 2]), measured


def _parts(
    xx: jax.Array, xr: jax.Array, rr: jax.Array, b: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The lengths of `v = x + b r` along r and across it, and its own."""
    divisor = jnp.where(rr > 0, rr, 1)
    across = jnp.maximum(xx - xr * xr / divisor, 0)
    along = (b + xr / divisor) * jnp.sqrt(rr)
    return along, jnp.sqrt(across), jnp.sqrt(across + along * along)
