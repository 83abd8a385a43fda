"""Floating-point numbers: a rounding that stays, and a scale at which squares keep their digits."""

from functools import reduce

import jax
import jax.numpy as jnp
from jax import lax


def at_least_float32(*dtypes: jax.typing.DTypeLike) -> jnp.dtype:
    """The dtype in which numbers of these dtypes are computed with, whatever promotion JAX allows."""
    # Floats of 8 bits promote to nothing.
    wide = [dtype if jnp.dtype(dtype).itemsize > 1 else jnp.float32 for dtype in dtypes]
    with jax.numpy_dtype_promotion("standard"):
        return reduce(jnp.promote_types, wide, jnp.dtype(jnp.float32))


def rounded(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Rounds to a dtype for good, in at least float32: XLA may leave out a rounding between conversions."""
    info, wide = jnp.finfo(dtype), x.astype(at_least_float32(dtype))
    if info.bits >= 32:
        return wide
    narrow = lax.reduce_precision(wide, exponent_bits=info.nexp, mantissa_bits=info.nmant)
    if info.nexp == jnp.finfo(jnp.float32).nexp:
        return narrow
    # `reduce_precision` has no subnormal numbers. In float16 they are common enough to be kept.
    return jnp.where(jnp.abs(wide) < float(info.smallest_normal), wide, narrow)


def moderating_scale(size: jax.Array) -> jax.Array:
    """The power of two near `size ** (-5 / 8)`, at most 7e19 in float32, at which squares keep their digits.

    A factor that brought `size` to 1 would let the squares of numbers overflow that are 1e19 times as large.
    """
    info = jnp.finfo(size.dtype)
    bias = 1 - info.minexp
    exponent = lax.bitcast_convert_type(size, f"int{info.bits}") >> info.nmant
    moderate = jnp.minimum(5 * (bias - exponent) >> 3, bias // 2 + 3)
    return lax.bitcast_convert_type((bias + moderate) << info.nmant, size.dtype)
