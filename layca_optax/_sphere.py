"""The arithmetic of one leaf: norms and turns on the sphere, accurate at every scale.

A leaf holds one or several weight vectors; the axes `axes` enumerate them. All
functions compute in at least float32 and keep reduced axes, so that scalars of
a vector broadcast against its entries. Only elementwise operations and sums over
axes are used: those work under every sharding, explicit meshes included.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from layca_optax._rules import Axes


def compute_dtype(leaf: jax.Array) -> jnp.dtype:
    return jnp.promote_types(leaf.dtype, jnp.float32)


def sum_vectors(x: jax.Array, axes: Axes) -> jax.Array:
    return jnp.sum(x, axis=_inner(x, axes), keepdims=True)


def drop_inner(x: jax.Array, axes: Axes) -> jax.Array:
    """From one entry a vector with kept axes to the shape of the enumerated axes."""
    return jnp.squeeze(x, _inner(x, axes))


def expand_inner(x: jax.Array, ndim: int, axes: Axes) -> jax.Array:
    """The inverse of `drop_inner`; a scalar stays a scalar."""
    return x if x.ndim == 0 else jnp.expand_dims(x, [i for i in range(ndim) if i not in axes])


@partial(jax.jit, static_argnums=1)
def vector_norms(leaf: jax.Array, axes: Axes) -> jax.Array:
    """The norm of every vector, shaped like the enumerated axes; neither overflows nor underflows."""
    unit, scale = _to_unit_size(leaf.astype(compute_dtype(leaf)), axes)
    return drop_inner(jnp.sqrt(sum_vectors(unit * unit, axes)) / scale, axes)


def visible_zeros(norms: jax.Array) -> int:
    """How many of the norms are zero, as far as their values can be seen."""
    seen = not isinstance(norms, jax.core.Tracer) and norms.is_fully_addressable
    return int(np.sum(np.asarray(norms) == 0)) if seen else 0


class _Turn(NamedTuple):
    """The new weights less the old: `along * w + across * t`.

    Here `t = step_scale * s - (lean + rest) * weight_scale * w`. `lean` removes the part of the
    step along the weights and `rest` what rounding left of it. One number a vector each; where `exists` is
    false there is no direction to turn in.
    """

    along: jax.Array
    across: jax.Array
    lean: jax.Array
    rest: jax.Array
    step_scale: jax.Array
    weight_scale: jax.Array
    exists: jax.Array


# Compiled, because outside jit `lax.cond` would be compiled anew at every call.
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
    """The update `w' - w` of one leaf; zero for vectors that have no direction to turn in.

    Three sums and one linear combination suffice for almost every step. Where squares would overflow or
    vanish, or cancellation would cost digits (a step nearly parallel to the weights), a second, slower way
    to the same seven numbers is taken; it reads the leaf several times but is rare.
    """
    dtype = compute_dtype(weights)
    w, s = weights.astype(dtype), step.astype(dtype)
    rate = expand_inner(jnp.asarray(rate, dtype), w.ndim, axes)
    n0 = expand_inner(initial_norm, w.ndim, axes)
    if retraction == "projection":
        # Only the direction of (1, rate) matters; neither part may overflow when squared.
        larger = jnp.maximum(1, jnp.abs(rate))
        p, q = 1 / larger, rate / larger
    else:
        p, q = jnp.cos(rate), jnp.sin(rate)

    ss, sw, ww = (sum_vectors(x, axes) for x in (s * s, s * w, w * w))
    lean = sw / ww if tangent else jnp.zeros_like(sw)
    tt = ss - lean * sw
    vv = p * p + q * q + (0 if tangent else 2 * p * q * (sw / jnp.sqrt(ss * ww)))
    one = jnp.ones_like(ss)
    low, high = jnp.sqrt(jnp.finfo(dtype).tiny), jnp.sqrt(jnp.finfo(dtype).max)
    in_range = (ss > low) & (ss < high) & (ww > low) & (ww < high)
    easy = jnp.all(in_range & (tt > ss / 4) & (vv > 0.25))
    result = jax.lax.cond(
        easy,
        lambda: _finish(p, q, n0, tt, vv, ww, lean, jnp.zeros_like(one), one, one, in_range),
        lambda: _careful_turn(w, s, p, q, n0, axes, tangent),
    )
    t = (result.step_scale * s - result.lean * (result.weight_scale * w)) - result.rest * (
        result.weight_scale * w
    )
    exists = result.exists & (n0 > 0) & (n0 < _most(dtype)) & jnp.isfinite(rate)
    exists = exists & jnp.isfinite(result.along) & jnp.isfinite(result.across)
    update = jnp.where(exists, result.along * w + result.across * t, 0)
    largest = jnp.finfo(weights.dtype).max
    if largest < _most(dtype):  # float16: an update may be twice as large as any weight
        update = jnp.clip(update, -largest, largest)
    return update.astype(weights.dtype)


def _careful_turn(
    w: jax.Array, s: jax.Array, p: jax.Array, q: jax.Array, n0: jax.Array, axes: Axes, tangent: bool
) -> _Turn:
    """As in `turn`, from vectors scaled to unit size, the projection done twice and its result measured."""
    w, weight_scale = _to_unit_size(w, axes)
    s, step_scale = _to_unit_size(s, axes)
    ss, ww = sum_vectors(s * s, axes), sum_vectors(w * w, axes)
    if tangent:
        lean = sum_vectors(s * w, axes) / ww
        t = s - lean * w
        rest = sum_vectors(t * w, axes) / ww
        t = t - rest * w
        tt, vv = sum_vectors(t * t, axes), p * p + q * q
    else:
        lean = rest = jnp.zeros_like(ss)
        v = (p / jnp.sqrt(ww)) * w + (q / jnp.sqrt(ss)) * s
        tt, vv = ss, sum_vectors(v * v, axes)
    # Below this, rounding of s alone could have made t (and that of w and s, v).
    least = (8 * jnp.finfo(w.dtype).eps) ** 2
    exists = (tt > least * ss) & (vv > least) & jnp.isfinite(ss) & jnp.isfinite(ww)
    exists = exists & (jnp.sqrt(ww) / weight_scale < _most(w.dtype))
    return _finish(p, q, n0, tt, vv, ww, lean, rest, step_scale, weight_scale, exists)


def _finish(p, q, n0, tt, vv, ww, lean, rest, step_scale, weight_scale, exists) -> _Turn:
    """`w' = n0 v / ||v||` with `v = p w/||w|| + q t/||t||`, written as multiples of w and t."""
    along = p * (n0 * weight_scale) / jnp.sqrt(ww * vv) - 1
    across = q * n0 / jnp.sqrt(tt * vv)
    return _Turn(along, across, lean, rest, step_scale, weight_scale, exists)


def _most(dtype: jnp.dtype) -> np.floating:
    """Norms below this leave room for an update, which may be twice as long."""
    return jnp.finfo(dtype).max / 4


def _to_unit_size(x: jax.Array, axes: Axes) -> tuple[jax.Array, jax.Array]:
    """Every vector times a power of two that brings its largest entry near 1, and that power."""
    largest = jnp.max(jnp.abs(x), axis=_inner(x, axes), keepdims=True, initial=0)
    _, exponent = jnp.frexp(largest)
    # Powers beyond these are not normal numbers of the dtype; no finite x needs them.
    limit = -jnp.finfo(x.dtype).minexp
    scale = jnp.ldexp(jnp.ones_like(largest), jnp.clip(-exponent, -limit, limit))
    return x * scale, scale


def _inner(x: jax.Array, axes: Axes) -> Axes:
    return tuple(axis for axis in range(x.ndim) if axis not in axes)
