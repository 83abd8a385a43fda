r"""Computes a step: a turn on the sphere, accurate at every scale, by the same code on all devices.

Let :math:`u = w / n_0` and :math:`s = a u + t / k` with :math:`t` orthogonal to the weights, and a scale
:math:`k`. For any guess :math:`c_0` of :math:`a`, three sums of :math:`d = k (s - c_0 u)` give

.. math:: t = d - c u, \quad t \cdot t = d \cdot d - c \, (d \cdot u), \quad c = d \cdot u / u \cdot u .

This loses digits if :math:`d` is much longer than :math:`t`. So scale and guess come from a sample :math:`S`
of the entries, :math:`c_0 = s_S \cdot u_S / u_S \cdot u_S`. Then :math:`k |c_0 - a| \|u_S\| \le \|t_S\|`, and
however parallel step and weights are, the sample alone bounds the ratio of their lengths:

.. math:: \|d\|^2 \le \left(1 + \|u\|^2 / \|u_S\|^2\right) \|t\|^2 .
"""

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from layca_optax._floats import at_least_float32, moderating_scale, rounded
from layca_optax._rules import Axes, as_vectors
from layca_optax._vectors import per_vector, sample, sum_vectors

# From a rate, negative to turn away from the step, to p and q in `v = p w/||w|| + q t/||t||`; the length of v
# does not matter. A rate of 1e18 gives a right angle in every dtype, and its square does not overflow.
RETRACTIONS: Mapping[str, Callable[[jax.Array], tuple[jax.Array, jax.Array]]] = {
    "projection": lambda rate: (jnp.ones_like(rate), jnp.clip(rate, -1e18, 1e18)),
    "geodesic": lambda rate: (jnp.cos(rate), jnp.sin(rate)),
}


# Compiled, so that leaves of equal shape are traced once.
@partial(jax.jit, static_argnames=("axes", "tangent", "retraction"))
def turn(
    weights: jax.Array,
    step: jax.Array,
    rate: jax.Array,
    initial_norm: jax.Array,
    *,
    axes: Axes,
    tangent: bool,
    retraction: str,
) -> jax.Array:
    """Computes a leaf's update `n0 v/||v|| - w`; zero for vectors without a direction to turn in."""
    dtype = at_least_float32(weights.dtype)
    info = jnp.finfo(dtype)
    tiny, eps, huge = (float(x) for x in (info.tiny, info.eps, info.max))
    n0, rate = initial_norm.astype(dtype), rate.astype(dtype)
    (w, plain), (s, _) = as_vectors(weights, axes), as_vectors(step, axes)
    exact = lambda x: rounded(x, x.dtype).astype(dtype)
    each = lambda values: per_vector(values, w, plain)

    # First a sample, for scale and guess. The result does not depend on them, only its accuracy does.
    some_w, some_s = (exact(lax.stop_gradient(sample(x, plain))) for x in (w, s))
    share, entries = some_w.size / max(1, w.size), max(1, some_w.size / max(1, n0.size))
    sizes = jnp.minimum(jnp.abs(some_s), huge / entries)
    total, sw, ww = sum_vectors((sizes, some_s * some_w, some_w * some_w), plain)
    k = jnp.where(total > 0, moderating_scale(total / entries), 1)
    inverse = 1 / jnp.where(n0 > 0, n0, 1)
    su, uu = sw * inverse, ww * inverse * inverse
    # Sums of squares below `least` underflow. If the sample of the step is zero, its scale is unknown.
    least = tiny / eps * max(1, w.size / max(1, n0.size))
    least_step = jnp.where(total > 0, tiny, least)
    # Use the guess only if the sample has at least a quarter of its share of `u`'s squares.
    telling = (uu > share / 4) & (ww > least) & jnp.isfinite(su)
    guess = jnp.where(telling, k * su / jnp.where(telling, uu, 1), 0)

    # One pass over all entries, for the three sums.
    w, s = w.astype(dtype), exact(s)
    of_w = guess * inverse
    u, d = w * each(inverse), s * each(k) - w * each(of_w)
    dd, du, uu = sum_vectors((d * d, d * u, u * u), plain)
    on_sphere = (uu > least) & (uu < huge) & (n0 > 0) & (n0 < huge / 4)
    c = du / jnp.where(uu > least, uu, 1)
    tt, a = dd - c * du, guess + c
    ss = tt + a * a * uu

    # A step parallel to the weights has this much across them, by rounding; if tt << dd, digits are lost.
    rounding = max(4 * float(jnp.finfo(step.dtype).eps), 64 * eps)
    turns = on_sphere & (tt > rounding**2 * ss) & (tt > 1e-4 * dd) & (dd > least_step) & jnp.isfinite(rate)
    uu, tt, ss, rate = (jnp.where(turns, x, 1) for x in (uu, tt, ss, rate))
    p, q = RETRACTIONS[retraction](rate)
    if not tangent:
        p, q = p + q * a * jnp.sqrt(uu / ss), q * jnp.sqrt(tt / ss)
    length = jnp.sqrt(p * p + q * q)
    across = q / length * lax.rsqrt(tt)
    along = p / length * lax.rsqrt(uu) - 1 - across * c
    # With the barrier, one GPU kernel computes all values per vector; without it, several do.
    numbers = jnp.where(turns, jnp.stack([along, across, -n0]), 0)
    along, across, minus_n0 = lax.optimization_barrier(numbers)

    # One pass that writes the update. Here u and d have other signs, or XLA:CPU would store them between the
    # passes. In a vector that stands still, some entries may not be finite.
    u, d = w * each(-inverse), s * each(-k) - w * each(-of_w)
    update = each(minus_n0) * jnp.where(jnp.isfinite(d), each(along) * u + each(across) * d, 0)
    # In float16 an update may be twice the largest weight; in other dtypes the bound on n0 suffices.
    if (narrow := jnp.finfo(weights.dtype)).maxexp < info.maxexp:
        update = jnp.clip(update, float(narrow.min), float(narrow.max))
    return update.reshape(weights.shape).astype(weights.dtype)
