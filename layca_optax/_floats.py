"""Floating-point helpers: the dtype to compute in, rounding that XLA keeps, a scale for safe squares."""

from functools import reduce

import jax
import jax.numpy as jnp
from jax import lax


def at_least_float32(*dtypes: jax.typing.DTypeLike) -> jnp.dtype:
    """Returns the dtype to compute in for inputs of these dtypes, whatever promotion JAX allows."""
    # 8-bit floats have no promotion to float32.
    wide = [dtype if jnp.dtype(dtype).itemsize > 1 else jnp.float32 for dtype in dtypes]
    with jax.numpy_dtype_promotion("standard"):
        return reduce(jnp.promote_types, wide, jnp.dtype(jnp.float32))


def rounded(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Rounds to the precision of a dtype but stays in at least float32.

    A pair of casts would not do: under `jit`, XLA may skip the rounding between them.
    """
    info, wide = jnp.finfo(dtype), x.astype(at_least_float32(dtype))
    if info.bits >= 32:
        return wide
    narrow = lax.reduce_precision(wide, exponent_bits=info.nexp, mantissa_bits=info.nmant)
    if info.nexp == jnp.finfo(jnp.float32).nexp:
        return narrow
    # `reduce_precision` flushes subnormal numbers to zero. In float16 they are too common to lose.
    return jnp.where(jnp.abs(wide) < float(info.smallest_normal), wide, narrow)


def moderating_scale(size: jax.Array) -> jax.Array:
    """Returns a power of two near `size ** (-5 / 8)`, at most 7e19 in float32, to scale by before squaring.

    The factor `1 / size` would be too much: squares of entries 1e19 times as large as `size` would overflow.
    """
    info = jnp.finfo(size.dtype)
    bias = 1 - info.minexp
    exponent = lax.bitcast_convert_type(size, f"int{info.bits}") >> info.nmant
    moderate = jnp.minimum(5 * (bias - exponent) >> 3, bias // 2 + 3)
    return lax.bitcast_convert_type((bias + moderate) << info.nmant, size.dtype)
