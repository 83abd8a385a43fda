"""What XLA:CPU needs to read weights as seldom as XLA does on GPUs and TPUs.

XLA:CPU reads arrays once per sum over them, and stores what several sums have in common. One reduction with
several results reads once, but adds term by term: slowly, and 400,000 terms only to within 1e-3. Here the
terms are rows of 8 entries. The reshape into rows could move shards, hence only where there are no others.

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
        # A longer loop over more sums is no longer made of vector instructions.
        shape, axis, over = _in_rows(x.shape, over, terms=16 if len(arrays) <= 3 else 8)
        if axis is not None:
            arrays = reduce_together(tuple(x.reshape(shape) for x in arrays), (axis,))
    return tuple(jnp.sum(x, axis=over) for x in arrays)


def reduce_together(arrays: Arrays, over: Shape) -> Arrays:
    """Sums each array over the axes `over`, all in one reduction."""
    zeros = (jnp.zeros([], arrays[0].dtype),) * len(arrays)
    add = lambda left, right: tuple(a + b for a, b in zip(left, right, strict=True))
    return tuple(lax.reduce(arrays, zeros, add, over))


def after(x: jax.Array, seen: jax.Array) -> jax.Array:
    """Returns `x` once `seen` is computed, a number that is never below 0, which XLA cannot know."""
    wait = lambda x, seen: jnp.where(jnp.any(seen < 0), 0, x)
    return lax.platform_dependent(x, seen, cpu=wait, default=lambda x, seen: x)


def _in_rows(shape: Shape, over: Shape, terms: int) -> tuple[Shape, int | None, Shape]:
    """A shape with an axis of length `terms`, this axis, and the axes to sum over when it is gone."""
    first = min(over)
    blocks, left_over = divmod(math.prod(shape[first:]), 8 * terms)
    if over == tuple(range(first, len(shape))) and not left_over:
        # Rows that lie one behind the other: memory is read from start to end.
        return (*shape[:first], blocks, terms, 8), first + 1, (first, first + 1)
    for axis in over:
        before, length, behind = shape[:axis], shape[axis], shape[axis + 1 :]
        if length % terms == 0 and length // terms * math.prod(behind) >= 32:
            return (*before, terms, length // terms, *behind), axis, over
    return shape, None, over
