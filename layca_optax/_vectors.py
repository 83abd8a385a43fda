"""Sums and samples the entries of weight vectors.

`axes` are the axes of an array that enumerate its vectors. Arrays of one value per vector have their shape.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from layca_optax._xla_cpu import Arrays, Shape, reduce_together, sum_in_one_pass


def inner_axes(x: jax.Array, axes: Shape) -> Shape:
    return tuple(axis for axis in range(x.ndim) if axis not in axes)


def per_vector(values: jax.Array, x: jax.Array, axes: Shape) -> jax.Array:
    """Reshapes one value per vector to broadcast to `x`; a scalar stays a scalar."""
    return values if values.ndim == 0 else jnp.expand_dims(values, inner_axes(x, axes))


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def sum_vectors(arrays: Arrays, axes: Shape) -> Arrays:
    """Sums each array over the entries of every vector, in one reduction, which is two kernels on a GPU."""
    over = inner_axes(arrays[0], axes)
    if jax.sharding.get_abstract_mesh().manual_axes:
        # In `shard_map`, all operands of a joint reduction would have to vary over the same mesh axes.
        return tuple(jnp.sum(x, axis=over) for x in arrays)
    return lax.platform_dependent(
        *arrays, cpu=lambda *xs: sum_in_one_pass(xs, over), default=lambda *xs: reduce_together(xs, over)
    )


@sum_vectors.defjvp
def _sum_vectors_jvp(axes: Shape, primals: Any, tangents: Any) -> tuple[Any, Any]:
    # JAX cannot differentiate a reduction with several results if one operand is constant.
    (arrays,), (changes,) = primals, tangents
    return sum_vectors(arrays, axes), tuple(jnp.sum(x, axis=inner_axes(x, axes)) for x in changes)


def sample(x: jax.Array, axes: Shape) -> jax.Array:
    """Takes at least one entry in 2,048 from all over every vector; all entries of small arrays.

    It slices the longest inner axis except the last, equally often on every device, so that no shard moves.
    """
    axis = max((a for a in inner_axes(x, axes) if a < x.ndim - 1), key=lambda a: x.shape[a], default=None)
    if axis is None or x.size < 2**13:
        return x
    length, devices = x.shape[axis], jax.device_count()
    entries = math.prod(x.shape[a] for a in inner_axes(x, axes)) // length
    # A GPU sums 4,096 entries in one kernel, and 16,384 in two.
    fewest = max(4, math.ceil(4096 * length / x.size), math.ceil(16 / entries), math.ceil(length / 2048))
    fewest = devices * math.ceil(fewest / devices)
    if length < 2 * fewest:
        return x
    numbers = [n for n in range(fewest, min(4 * fewest, length), devices) if length % n == 0]
    if not numbers:
        return x[(slice(None),) * axis + (slice(None, None, length // fewest),)]
    slices = x.reshape(*x.shape[:axis], numbers[0], length // numbers[0], *x.shape[axis + 1 :])
    return lax.index_in_dim(slices, 0, axis + 1, keepdims=False)
