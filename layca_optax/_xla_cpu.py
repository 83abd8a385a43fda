"""Makes XLA:CPU read the weights as rarely as XLA does on GPUs and TPUs.

For several sums XLA:CPU reads the arrays once per sum and stores their common subexpressions. One reduction
with several results reads them once but adds term by term, which is slow and, for 400,000 terms, accurate to
1e-3 only. So here each term is a row of 8 entries. Only on one device, since the reshape could move shards.

Delete this file when `python -m benchmarks.optimizers sizes` shows no difference without it.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

Shape, Arrays = tuple[int, ...], tuple[jax.Array, ...]


def sum_in_one_pass(arrays: Arrays, over: Shape) -> Arrays:
    """Sums each array over the axes `over`."""
    x = arrays[0]
    if x.size >= 2**13 and jax.device_count() == 1 and not any(jax.typeof(x).sharding.spec):
        # With more sums, XLA:CPU stops vectorising longer loops.
        shape, axis, over = _in_rows(x.shape, over, terms=16 if len(arrays) <= 3 else 8)
        if axis is not None:
            arrays = reduce_together(tuple(x.reshape(shape) for x in arrays), (axis,))
    return tuple(jnp.sum(x, axis=over) for x in arrays)


def reduce_together(arrays: Arrays, over: Shape) -> Arrays:
    """Sums each array over the axes `over` in one joint reduction."""
    zeros = (jnp.zeros([], arrays[0].dtype),) * len(arrays)
    add = lambda left, right: tuple(a + b for a, b in zip(left, right, strict=True))
    return tuple(lax.reduce(arrays, zeros, add, over))


def after(x: jax.Array, seen: jax.Array) -> jax.Array:
    """Returns `x`, but only after `seen` is computed: it is never negative, which XLA cannot know."""
    wait = lambda x, seen: jnp.where(jnp.any(seen < 0), 0, x)
    return lax.platform_dependent(x, seen, cpu=wait, default=lambda x, seen: x)


def _in_rows(shape: Shape, over: Shape, terms: int) -> tuple[Shape, int | None, Shape]:
    """Finds a shape with an axis of length `terms`; returns it, that axis, and the axes to sum next."""
    first = min(over)
    blocks, left_over = divmod(math.prod(shape[first:]), 8 * terms)
    if over == tuple(range(first, len(shape))) and not left_over:
        # The summed axes are the last ones: read memory from start to end.
        return (*shape[:first], blocks, terms, 8), first + 1, (first, first + 1)
    for axis in over:
        before, length, behind = shape[:axis], shape[axis], shape[axis + 1 :]
        if length % terms == 0 and length // terms * math.prod(behind) >= 32:
            return (*before, terms, length // terms, *behind), axis, over
    return shape, None, over
