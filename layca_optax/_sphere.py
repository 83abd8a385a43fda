"""The arithmetic: norms and turns on the sphere, accurate at every scale.

A leaf holds one or several weight vectors; the axes `axes` enumerate them. All
functions compute in at least float32; what is one number a vector has the shape
of the enumerated axes. Only elementwise operations and sums over axes are used:
those work under every sharding, explicit meshes included.
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


class _Direction(NamedTuple):
    """`t = step_scale * s - lean * u - rest * u` where `u = w / n0`, and the squares that make it a unit.

    `lean` removes the part of the step along the weights and `rest` what rounding left of it. One number a
    vector each; `tt_vv` is NaN where there is no direction.
    """

    step_scale: jax.Array
    lean: jax.Array
    rest: jax.Array
    uu_vv: jax.Array
    tt_vv: jax.Array


# Compiled, because outside jit `lax.cond` would be compiled anew at every call.
@partial(jax.jit, static_argnames=("axes", "tangent", "retraction"))
def turn(
    weights: list[jax.Array],
    steps: list[jax.Array],
    rates: list[jax.Array],
    initial_norms: list[jax.Array],
    *,
    axes: tuple[Axes, ...],
    tangent: bool,
    retraction: str,
) -> list[jax.Array]:
    """The updates `w' - w` of all leaves; zero for vectors that have no direction to turn in.

    Three sums and one linear combination suffice for almost every step. Where squares would overflow or
    vanish, or cancellation would cost digits (a step nearly parallel to the weights, or no step at all), a
    second, slower way to the same numbers is taken. That is one choice for all leaves: a GPU asks the host
    for every choice.
    """
    if not weights:
        return []
    leaves = list(zip(weights, steps, initial_norms, axes, strict=True))
    pq = [_combination(rate, compute_dtype(w), retraction) for w, rate in zip(weights, rates, strict=True)]
    sums = [_sums(w, s, ax) for w, s, _, ax in leaves]
    fast = [
        _direction(*leaf_sums, n0, *leaf_pq, tangent)
        for leaf_sums, n0, leaf_pq in zip(sums, initial_norms, pq, strict=True)
    ]
    directions = jax.lax.cond(
        jnp.all(jnp.stack([jnp.all(easy) for easy, _ in fast])),
        lambda: [direction for _, direction in fast],
        lambda: [
            _careful_direction(w, s, n0, ss, *leaf_pq, *leaf_fast, ax, tangent)
            for (w, s, n0, ax), (ss, _, _), leaf_pq, leaf_fast in zip(leaves, sums, pq, fast, strict=True)
        ],
    )
    return [
        _update(w, s, n0, *leaf_pq, direction, ax)
        for (w, s, n0, ax), leaf_pq, direction in zip(leaves, pq, directions, strict=True)
    ]


def _combination(rate: jax.Array, dtype: jnp.dtype, retraction: str) -> tuple[jax.Array, jax.Array]:
    """`p` and `q` of `v = p w/||w|| + q t/||t||`. A negative rate turns away from the step."""
    rate = jnp.asarray(rate, dtype)
    if retraction == "geodesic":
        return jnp.cos(rate), jnp.sin(rate)
    # Only the direction of (1, rate) matters; neither part may overflow when squared.
    larger = jnp.maximum(1, jnp.abs(rate))
    return 1 / larger, rate / larger


# The functions of one leaf are compiled, so that leaves of equal shape are traced once.
@partial(jax.jit, static_argnums=2)
def _sums(w: jax.Array, s: jax.Array, axes: Axes) -> tuple[jax.Array, jax.Array, jax.Array]:
    dtype = compute_dtype(w)
    w, s = w.astype(dtype), s.astype(dtype)
    return _total(s * s, axes), _total(s * w, axes), _total(w * w, axes)


@partial(jax.jit, static_argnums=6)
def _direction(
    ss: jax.Array, sw: jax.Array, ww: jax.Array, n0: jax.Array, p: jax.Array, q: jax.Array, tangent: bool
) -> tuple[jax.Array, _Direction]:
    """What follows from the sums, and whether it is right: neither squares nor differences lost digits."""
    one, zero = jnp.ones_like(ss), jnp.zeros_like(ss)
    low, high = _range(ss.dtype)
    smallest, largest = jnp.minimum(jnp.minimum(ss, ww), n0), jnp.maximum(jnp.maximum(ss, ww), n0)
    easy = (smallest > low) & (largest < high)
    uu, vv = ww / (n0 * n0), p * p + q * q
    if tangent:
        lean = sw / ww
        tt = ss - lean * sw
        easy = easy & (tt > ss / 4)
    else:
        lean, tt = zero, ss
        vv = vv + 2 * p * q * (sw / jnp.sqrt(ss * ww))
        easy = easy & (vv > 0.25)
    return easy, _Direction(one, lean * n0, zero, uu * vv, tt * vv)


@partial(jax.jit, static_argnums=(8, 9))
def _careful_direction(
    w: jax.Array,
    s: jax.Array,
    n0: jax.Array,
    ss: jax.Array,
    p: jax.Array,
    q: jax.Array,
    easy: jax.Array,
    fast: _Direction,
    axes: Axes,
    tangent: bool,
) -> _Direction:
    """As `_direction`, from vectors scaled so that squares are right, projected twice, the result measured.

    Vectors for which that was not necessary keep what they have: their updates do not depend on the others.
    """
    dtype = compute_dtype(w)
    spread = lambda x: expand_inner(x, w.ndim, axes)
    low, high = _range(dtype)
    far = float(2.0 ** (jnp.finfo(dtype).maxexp * 5 // 6))
    step_scale = jnp.where(ss < low, far, jnp.where(ss < high, jnp.ones_like(ss), 1 / far))
    u, s = w.astype(dtype) * spread(1 / n0), s.astype(dtype) * spread(step_scale)
    ss, uu, vv = _total(s * s, axes), _total(u * u, axes), p * p + q * q
    lean = rest = jnp.zeros_like(ss)
    tt = ss
    if tangent:
        lean = _total(s * u, axes) / uu
        t = s - spread(lean) * u
        tu = _total(t * u, axes)
        rest = tu / uu
        tt = _total(t * t, axes) - rest * tu
    else:
        v = spread(p / jnp.sqrt(uu)) * u + spread(q / jnp.sqrt(ss)) * s
        vv = _total(v * v, axes)
    # Rounding alone can make up to this part of a square; updates may be twice as long as these norms.
    least, most = (8 * jnp.finfo(dtype).eps) ** 2, jnp.finfo(dtype).max / 4
    exists = (tt > least * ss) & (vv > least) & (uu > low) & (jnp.maximum(1, jnp.sqrt(uu)) * n0 < most)
    careful = _Direction(step_scale, lean, rest, uu * vv, jnp.where(exists, tt * vv, jnp.nan))
    return jax.tree.map(partial(jnp.where, easy), fast, careful)


@partial(jax.jit, static_argnums=6)
def _update(
    w: jax.Array, s: jax.Array, n0: jax.Array, p: jax.Array, q: jax.Array, direction: _Direction, axes: Axes
) -> jax.Array:
    """`n0 v/||v|| - w`, written with multiples of w and t."""
    dtype = compute_dtype(w)
    step_scale, lean, rest, uu_vv, tt_vv = (expand_inner(x, w.ndim, axes) for x in direction)
    p, q, n0 = (expand_inner(x, w.ndim, axes) for x in (p, q, n0))
    along, across = p / jnp.sqrt(uu_vv) - 1, q * n0 / jnp.sqrt(tt_vv)
    exact, s = w.astype(dtype), s.astype(dtype)
    u = exact * (1 / n0)
    t = (step_scale * s - lean * u) - rest * u
    exists = jnp.isfinite(along) & jnp.isfinite(across)
    update = jnp.where(exists, along * exact + across * t, 0)
    largest = jnp.finfo(w.dtype).max
    if largest < jnp.finfo(dtype).max:  # float16: an update may be twice as large as any weight
        update = jnp.clip(update, -largest, largest)
    return update.astype(w.dtype)


def _total(x: jax.Array, axes: Axes) -> jax.Array:
    return jnp.sum(x, axis=_inner(x, axes))


def _range(dtype: jnp.dtype) -> tuple[np.floating, np.floating]:
    """Sums of squares between these are right, whatever the squares of single entries are."""
    return np.sqrt(jnp.finfo(dtype).tiny), np.sqrt(jnp.finfo(dtype).max)


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
