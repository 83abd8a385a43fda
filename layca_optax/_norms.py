"""Norms of weight vectors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from layca_optax._floats import moderating_scale
from layca_optax._rules import Axes, as_vectors
from layca_optax._vectors import inner_axes, per_vector


@partial(jax.jit, static_argnums=1)
def vector_norms(leaf: jax.Array, axes: Axes) -> jax.Array:
    """The norm of every vector in at least float32; neither overflows nor underflows."""
    x, plain = as_vectors(leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), axes)
    inner = inner_axes(x, plain)
    scale = moderating_scale(jnp.max(jnp.abs(x), axis=inner, initial=0))
    return jnp.sqrt(jnp.sum((x * per_vector(scale, x, plain)) ** 2, axis=inner)) / scale


def visible_zeros(norms: jax.Array) -> int:
    """Counts the norms that are zero, as far as their values can be seen."""
    seen = not isinstance(norms, jax.core.Tracer) and norms.is_fully_addressable
    return int(np.sum(np.asarray(norms) == 0)) if seen else 0
