"""The weight vectors of a leaf: sums over their entries and norms, accurate at every scale.

A leaf holds one or several weight vectors; the axes `axes` enumerate them. What is one number a vector has
the shape of the enumerated axes.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from layca_optax._rules import Axes


def compute_dtype(leaf: jax.Array) -> jnp.dtype:
    return jnp.promote_types(leaf.dtype, jnp.float32)


def sum_vectors(x: jax.Array, axes: Axes) -> jax.Array:
    """The sum over the entries of every vector, shaped like the enumerated axes."""
    return jnp.sum(x, axis=_inner(x, axes))


def expand_inner(x: jax.Array, ndim: int, axes: Axes) -> jax.Array:
    """From the shape of the enumerated axes to one that broadcasts to the leaf's; a scalar stays a scalar."""
    return x if x.ndim == 0 else jnp.expand_dims(x, [i for i in range(ndim) if i not in axes])


@partial(jax.jit, static_argnums=1)
def vector_norms(leaf: jax.Array, axes: Axes) -> jax.Array:
    """The norm of every vector, shaped like the enumerated axes; neither overflows nor underflows."""
    unit, scale = _to_unit_size(leaf.astype(compute_dtype(leaf)), axes)
    return jnp.sqrt(sum_vectors(unit * unit, axes)) / jnp.squeeze(scale, _inner(leaf, axes))


def visible_zeros(norms: jax.Array) -> int:
    """How many of the norms are zero, as far as their values can be seen."""
    seen = not isinstance(norms, jax.core.Tracer) and norms.is_fully_addressable
    return int(np.sum(np.asarray(norms) == 0)) if seen else 0


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
