"""The weight vectors of a leaf: sums over their entries and norms, accurate at every scale.

A leaf holds one or several weight vectors; the axes `axes` enumerate them. What is one number a vector has
the shape of the enumerated axes.
"""

import math
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from layca_optax._rules import Axes

_Cut = tuple[tuple[int, ...], int]


def compute_dtype(leaf: jax.Array) -> jnp.dtype:
    return jnp.promote_types(leaf.dtype, jnp.float32)


def reads_cost(x: jax.Array) -> bool:
    """Whether to save reads of an array in ways that could move shards to other devices."""
    # Smaller arrays are read again from the fastest cache.
    return x.size >= 2**13 and jax.device_count() == 1 and not any(jax.typeof(x).sharding.spec)


def waits_for(x: jax.Array, looks: list[Any]) -> list[Any]:
    """Of the looks at arrays until now, the one that a look at `x` waits for, if it should.

    A CPU would look at many arrays at once, and read again from memory what the sums of large ones leave on
    their way. Three at a time, that is still in the caches.
    """
    return looks[-3:-2] if reads_cost(x) and x.size >= 2**19 else []


def after(x: jax.Array, *seen: jax.Array) -> jax.Array:
    """`x`, but not before something was seen: numbers that are never negative, which XLA cannot know."""
    if not seen:
        return x
    impossible = reduce(jnp.logical_or, [jnp.min(y, initial=0) < 0 for y in seen])
    return jnp.where(impossible, jnp.zeros([], x.dtype), x)


def sum_vectors(x: jax.Array, axes: Axes) -> jax.Array:
    """The sum over the entries of every vector, shaped like the enumerated axes."""
    return jnp.sum(x, axis=_inner(x, axes))


def sum_vectors_together(xs: tuple[jax.Array, ...], axes: Axes, terms: int = 16) -> tuple[jax.Array, ...]:
    """As `sum_vectors`, of arrays that are computed from the same ones, which are read once if possible.

    XLA does that by itself on GPUs and TPUs. On a CPU it reads them for every sum, and stores weights that it
    widened from 16 bits, unless one reduction returns all sums. That is fast where it adds only a few terms:
    it makes a shorter array of sums of `terms` entries, and ordinary sums do the rest. For that the array is
    reshaped, which could move shards to other devices, so it is done only if there are no others.
    """
    cut = _cut(xs[0], axes, terms) if reads_cost(xs[0]) else None
    plain = lambda *xs: tuple(sum_vectors(x, axes) for x in xs)
    if cut is None:
        return plain(*xs)
    return jax.lax.platform_dependent(*xs, cpu=lambda *xs: plain(*_first_sums(xs, cut)), default=plain)


def sample_vectors(xs: tuple[jax.Array, ...], axes: Axes) -> tuple[jax.Array, ...]:
    """Some entries of every vector, from all over it; all where fewer would save nothing or move shards."""
    x = xs[0]
    # Along the last axis it would read everything.
    long = [axis for axis in _inner(x, axes) if axis < x.ndim - 1 and x.shape[axis] >= 32]
    if not long or not reads_cost(x):
        return xs
    stride = max(4, x.shape[long[0]] // 16)
    return tuple(x[(slice(None),) * long[0] + (slice(None, None, stride),)] for x in xs)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _first_sums(xs: tuple[jax.Array, ...], cut: _Cut) -> tuple[jax.Array, ...]:
    shape, axis = cut
    zero = jnp.zeros([], xs[0].dtype)
    add = lambda a, b: tuple(p + q for p, q in zip(a, b, strict=True))
    return tuple(jax.lax.reduce(tuple(x.reshape(shape) for x in xs), (zero,) * len(xs), add, (axis,)))


@_first_sums.defjvp
def _first_sums_jvp(cut: _Cut, primals: Any, tangents: Any) -> tuple[Any, Any]:
    # jax cannot differentiate a reduction of which one operand is constant.
    (xs,), (dxs,) = primals, tangents
    shape, axis = cut
    return _first_sums(xs, cut), tuple(jnp.sum(dx.reshape(shape), axis) for dx in dxs)


def expand_inner(x: jax.Array, ndim: int, axes: Axes) -> jax.Array:
    """From the shape of the enumerated axes to one that broadcasts to the leaf's; a scalar stays a scalar."""
    return x if x.ndim == 0 else jnp.expand_dims(x, [i for i in range(ndim) if i not in axes])


def scale_to_unit_size(sizes: jax.Array) -> jax.Array:
    """The powers of two, by which numbers can be multiplied exactly, that bring sizes near 1; 1 for 0."""
    _, exponents = jnp.frexp(sizes)
    # Powers beyond these are not normal numbers of the dtype; no finite size needs them.
    limit = -jnp.finfo(sizes.dtype).minexp
    return jnp.ldexp(jnp.ones_like(sizes), jnp.clip(-exponents, -limit, limit))


@partial(jax.jit, static_argnums=1)
def vector_norms(leaf: jax.Array, axes: Axes) -> jax.Array:
    """The norm of every vector, shaped like the enumerated axes; neither overflows nor underflows."""
    unit, scale = _to_unit_size(leaf.astype(compute_dtype(leaf)), axes)
    return jnp.sqrt(sum_vectors(unit * unit, axes)) / jnp.squeeze(scale, _inner(leaf, axes))


def visible_zeros(norms: jax.Array) -> int:
    """How many of the norms are zero, as far as their values can be seen."""
    seen = not isinstance(norms, jax.core.Tracer) and norms.is_fully_addressable
    return int(np.sum(np.asarray(norms) == 0)) if seen else 0


def _cut(x: jax.Array, axes: Axes, terms: int) -> _Cut | None:
    """The shape with an axis of length `terms`, along which to add, and its position; None if none is apt."""
    # Rows of 16 entries, a cache line in float32, one behind the other: memory is read from start to end.
    first = max(axes, default=-1) + 1
    blocks, left_over = divmod(math.prod(x.shape[first:]), terms * 16)
    if blocks and not left_over:
        return (*x.shape[:first], blocks, terms, 16), first + 1
    for axis in _inner(x, axes):
        before, size, behind = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
        rest = (size // terms, *behind)
        if size % terms == 0 and math.prod(rest) >= 32:
            return (*before, terms, *rest), axis
    return None


def _to_unit_size(x: jax.Array, axes: Axes) -> tuple[jax.Array, jax.Array]:
    """Every vector times a power of two that brings its largest entry near 1, and that power."""
    scale = scale_to_unit_size(jnp.max(jnp.abs(x), axis=_inner(x, axes), keepdims=True, initial=0))
    return x * scale, scale


def _inner(x: jax.Array, axes: Axes) -> Axes:
    return tuple(axis for axis in range(x.ndim) if axis not in axes)
