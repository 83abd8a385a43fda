"""Processes small leaves together on a single CPU device: their vectors become the rows of one array.

XLA:CPU takes 1 ms to compile a kernel, and 10 ms if the kernel is unlike all others. With separate kernels
for 100 small leaves, a step compiled six times as long as Adam's. On GPUs and TPUs the rows would only cost
copies.

Delete this file when `python -m benchmarks.optimizers leaves` shows no difference without it.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from layca_optax._rules import Axes, as_vectors, vectors_shape
from layca_optax._vectors import inner_axes

# Copying a larger leaf takes longer than its step.
LARGE = 2**15

# Arrays of a leaf's shape, then arrays with one value per vector.
Leaf = tuple[Sequence[jax.Array], Sequence[jax.Array]]
# An array of the leaf's shape, then arrays with several values per vector, along a last axis.
Results = tuple[jax.Array, ...]


def for_each_leaf(
    function: Callable[..., Results], leaves: Sequence[Leaf], axes: Sequence[Axes]
) -> list[Results]:
    """Calls `function(*arrays, *values, axes=axes)` for every leaf, small leaves together."""
    call = lambda leaf, axes: function(*leaf[0], *leaf[1], axes=axes)
    results: dict[int, Results] = {}
    small = [i for i, (arrays, _) in enumerate(leaves) if _fits_in_rows(arrays)]
    if small:
        axes_of_small = [axes[i] for i in small]
        of_small = lax.platform_dependent(
            [leaves[i] for i in small],
            cpu=lambda leaves: _in_rows(call, leaves, axes_of_small),
            default=lambda leaves: list(map(call, leaves, axes_of_small)),
        )
        results.update(zip(small, of_small, strict=True))
    return [results.get(i) or call(leaf, axes[i]) for i, leaf in enumerate(leaves)]


def _fits_in_rows(arrays: Sequence[jax.Array]) -> bool:
    # Outside `jit`, leaves of the same shape share a compiled function anyway.
    traced = any(isinstance(x, jax.core.Tracer) for x in arrays)
    alone = jax.device_count() == 1 and not jax.sharding.get_abstract_mesh().manual_axes
    sharded = any(any(jax.typeof(x).sharding.spec) for x in arrays)
    return 0 < arrays[0].size < LARGE and traced and alone and not sharded


def _in_rows(call: Callable[..., Results], leaves: Sequence[Leaf], axes: Sequence[Axes]) -> list[Results]:
    results: dict[int, Results] = {}
    shapes = [vectors_shape(ax) for ax in axes]
    groups: dict[Any, list[int]] = defaultdict(list)
    for i, (arrays, _) in enumerate(leaves):
        entries = arrays[0].size // math.prod(shapes[i])
        width = 1 << (entries - 1).bit_length()
        groups[width, tuple((x.dtype, jax.typeof(x).memory_space) for x in arrays)].append(i)
    for (width, _), group in groups.items():
        arrays, values = leaves[group[0]]
        if len(group) == 1:
            results[group[0]] = call(leaves[group[0]], axes[group[0]])
            continue
        wide = jnp.promote_types(arrays[0].dtype, jnp.float32)
        rows = [
            jnp.concatenate([_as_rows(leaves[i][0][k], axes[i], width) for i in group])
            for k in range(len(arrays))
        ]
        per_row = [
            jnp.concatenate(
                [jnp.broadcast_to(leaves[i][1][k].astype(wide), shapes[i]).ravel() for i in group]
            )
            for k in range(len(values))
        ]
        of_entries, *of_rows = call((rows, per_row), ((0, len(rows[0])),))
        first = 0
        for i in group:
            cut = partial(_cut, first=first, count=math.prod(shapes[i]))
            leaf = _as_leaf(cut(of_entries), leaves[i][0][0], axes[i])
            results[i] = leaf, *(cut(x).reshape(*shapes[i], -1) for x in of_rows)
            first += math.prod(shapes[i])
    return [results[i] for i in range(len(leaves))]


def _as_rows(leaf: jax.Array, axes: Axes, width: int) -> jax.Array:
    """Returns the leaf's vectors as rows, padded with zeros."""
    x, plain = as_vectors(leaf, axes)
    rows = jnp.moveaxis(x, plain, range(len(plain))).reshape(math.prod(vectors_shape(axes)), -1)
    return jnp.pad(rows, ((0, 0), (0, width - rows.shape[1])))


def _as_leaf(rows: jax.Array, leaf: jax.Array, axes: Axes) -> jax.Array:
    """Reverses `_as_rows`."""
    x, plain = as_vectors(leaf, axes)
    shape = (*vectors_shape(axes), *(x.shape[axis] for axis in inner_axes(x, plain)))
    moved = rows[:, : leaf.size // len(rows)].reshape(shape)
    return jnp.moveaxis(moved, range(len(plain)), plain).reshape(leaf.shape)


def _cut(x: jax.Array, first: int, count: int) -> jax.Array:
    """Returns `x[first : first + count]`, with the same kernel for all leaves of a shape.

    XLA:CPU would compile a constant `first` into the kernel, so hide its value behind a barrier.
    """
    start = lax.optimization_barrier(jnp.array([first, 0]))
    return lax.dynamic_slice(x, (start[0], start[1]), (count, x.shape[1]))
