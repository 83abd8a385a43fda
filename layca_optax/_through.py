"""Computes the origins of an operation's results from the origins of its operands.

Operations that move entries (transposes, slices, gathers with known indices, …) move the arrays of an
`Origin` in the same way. Sums and matrix products mix the entries that they add up. For all other operations
JAX's own batching rules (`vmap`) tell along which axes entries stay separate.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import jax
import numpy as np

from layca_optax._indices import looked_up, written
from layca_optax._known import Known
from layca_optax._origin import (
    NONE,
    NOWHERE,
    Origin,
    Shape,
    Vectors,
    joined,
    merged,
    moved,
    narrow,
    origin,
    placed,
    reshaped,
    shape_of,
    taken,
    terms,
    union,
)


def through(
    eqn: Any, operands: Sequence[Origin], known: Sequence[Known | None], vectors: Vectors
) -> list[Origin]:
    """Returns the origins of an equation's results; `known` holds the operands whose values are known."""
    if not any(value.everywhere or value.apart for value in operands):
        return [NOWHERE] * len(eqn.outvars)
    name, params = eqn.primitive.name, eqn.params
    shapes, results = ([shape_of(v) for v in side] for side in (eqn.invars, eqn.outvars))
    first, before, after = operands[0], shapes[0], results[0]
    take = lambda index: taken(first, before, lambda ids: ids[index], vectors)
    match name:
        case "transpose":
            return [moved(first, lambda ids: ids.transpose(params["permutation"]))]
        case "rev":
            return [moved(first, lambda ids: np.flip(ids, params["dimensions"]))]
        case "reshape" | "squeeze" | "expand_dims":
            return [moved(first, lambda ids: reshaped(ids, after))]
        case "broadcast_in_dim":
            places = params["broadcast_dimensions"]
            return [moved(first, lambda ids: np.broadcast_to(placed(narrow(ids), places, len(after)), after))]
        case "slice":
            strides = params["strides"] or [1] * len(before)
            return [take(tuple(map(slice, params["start_indices"], params["limit_indices"], strides)))]
        case "split":
            ends = np.cumsum([0, *params["sizes"]])
            return [take(_along(params["axis"], slice(a, b))) for a, b in pairwise(ends)]
        case "unstack":
            return [take(_along(params["axis"], i)) for i in range(len(results))]
        case "stack":
            axis = params["axis"]
            rows = [moved(value, lambda ids: np.expand_dims(ids, axis)) for value in operands]
            return [joined(rows, [(*shape[:axis], 1, *shape[axis:]) for shape in shapes], axis)]
        case "concatenate":
            return [joined(operands, shapes, params["dimension"])]
        case "pad":
            return [_padded(operands, before, params["padding_config"])]
        case "tile":
            return [moved(first, lambda ids: _tiled(ids, params["reps"], after))]
        case "all_gather" if params["tiled"]:
            repeats = [1] * len(before)
            repeats[params["all_gather_dimension"]] = params["axis_size"]
            return [moved(first, lambda ids: _tiled(ids, repeats, after))]
        case "dynamic_slice" | "gather":
            return [looked_up(eqn, operands, known, vectors)]
        case "dynamic_update_slice" | "scatter":
            result = written(eqn, operands, known)
            return _unknown(eqn, operands, vectors) if result is None else [result]
        case "sharding_constraint" | "reshard" | "mesh_cast":
            return [first]
        case "dot_general":
            return [_contracted(eqn, operands, vectors)]
        case "conv_general_dilated" if not any(value.apart for value in operands):
            return [union(operands)]
    axes = params.get("axes")
    if axes and all(isinstance(axis, str) for axis in axes) and results == shapes:
        # A collective, such as a sum over devices.
        return list(operands)
    if axes and after == tuple(size for d, size in enumerate(before) if d not in axes):
        mixed = lambda ids: np.squeeze(merged(ids, axes, name, True, vectors), tuple(axes))
        return [moved(first, mixed)]
    return _unknown(eqn, operands, vectors)


def refitted(value: Origin, shape: Shape, other: Shape, vectors: Vectors) -> Origin:
    """Converts an origin to the value's shape inside `shard_map`, or back to its shape outside."""
    if shape == other:
        return value
    same = len(shape) == len(other)
    lost = [d for d in range(len(shape)) if not same or shape[d] != other[d]]
    left = [d for d in range(len(shape)) if d not in lost]
    return moved(value, lambda ids: _only(merged(ids, lost, "shard_map", False, vectors), left, other))


def _padded(operands: Sequence[Origin], shape: Shape, config: Sequence[tuple[int, int, int]]) -> Origin:
    """Does what `lax.pad` does; the padding comes from `operands[1]`."""
    arrays = []
    for ids in terms(operands[0], shape):
        for axis, (low, high, interior) in enumerate(config):
            size = ids.shape[axis]
            if (low, high, interior) == (0, 0, 0):
                continue
            ids = narrow(ids)
            ids = np.broadcast_to(ids, (*ids.shape[:axis], size, *ids.shape[axis + 1 :]))
            long = max(size + (size - 1) * interior, 0)
            spread = np.full((*ids.shape[:axis], long, *ids.shape[axis + 1 :]), NONE, np.int32)
            spread[_along(axis, slice(None, None, interior + 1))] = ids
            width = [(0, 0)] * axis + [(max(low, 0), max(high, 0))] + [(0, 0)] * (ids.ndim - axis - 1)
            spread = np.pad(spread, width, constant_values=NONE)
            ids = spread[_along(axis, slice(max(-low, 0), spread.shape[axis] - max(-high, 0)))]
        arrays.append(ids)
    full = tuple(
        low + high + size + max(size - 1, 0) * interior
        for size, (low, high, interior) in zip(shape, config, strict=True)
    )
    return origin(operands[1].everywhere, [np.broadcast_to(ids, full) for ids in arrays])


def _contracted(eqn: Any, operands: Sequence[Origin], vectors: Vectors) -> Origin:
    """Returns the origin of a matrix product: each entry comes from all entries that it sums."""
    contracting, batch = eqn.params["dimension_numbers"]
    result = shape_of(eqn.outvars[0])
    arrays, end = [], len(batch[0])
    for value, v, summed, shared in zip(operands, eqn.invars, contracting, batch, strict=True):
        free = [d for d in range(len(shape_of(v))) if d not in (*summed, *shared)]
        places = [*range(len(shared)), *range(end, end + len(free))]
        end += len(free)
        for ids in value.apart:
            small = narrow(merged(ids, summed, eqn.primitive.name, True, vectors))
            small = np.squeeze(small.transpose(*shared, *free, *summed), tuple(range(len(places), ids.ndim)))
            arrays.append(np.broadcast_to(placed(small, places, len(result)), result))
    return origin(operands[0].everywhere | operands[1].everywhere, arrays)


def _unknown(eqn: Any, operands: Sequence[Origin], vectors: Vectors) -> list[Origin]:
    """Handles any other operation: entries stay separate along the axes that are batch axes under `vmap`."""
    arrays = [ids for value, v in zip(operands, eqn.invars, strict=True) for ids in terms(value, shape_of(v))]
    if (
        all(ids.size == 1 for ids in arrays)
        or len({int(i) for ids in arrays for i in np.unique(narrow(ids))}) < 2
    ):
        everywhere = frozenset(int(i) for value in operands for i in value.vector_ids())
        return [Origin(everywhere)] * len(eqn.outvars)
    axes = range(max(ids.ndim for ids in arrays))
    kept = [axis for axis in axes if _is_batch_axis(eqn, axis)]
    lost = [axis for axis in axes if axis not in kept]

    def blurred(rows: np.ndarray, axes: Sequence[int]) -> np.ndarray:
        return merged(rows, axes, eqn.primitive.name, False, vectors)

    results = []
    for shape in map(shape_of, eqn.outvars):
        left = [blurred(ids, [axis for axis in lost if axis < ids.ndim]) for ids in arrays]
        value = origin((), [_only(ids, kept, shape) for ids in left])
        if lost and len(several := terms(value, shape)) > 1:
            # It is also unknown which of the operands an entry comes from.
            rows = np.stack(np.broadcast_arrays(*map(narrow, several)))
            value = origin((), [np.broadcast_to(blurred(rows, [0])[0], shape)])
        results.append(value)
    return results


def _is_batch_axis(eqn: Any, axis: int) -> bool:
    """Tells whether the operation treats the entries along this axis independently and alike.

    It does if removing the axis and adding it again with `vmap` gives the same operation.
    """
    params = dict(eqn.params)
    for name in ("axis", "dimension"):
        if isinstance(params.get(name), int):
            if params[name] == axis:
                return False
            params[name] -= params[name] > axis
    one = lambda *operands: eqn.primitive.bind(*operands, **params)
    shapes = [shape_of(v) for v in eqn.invars]
    every = jax.vmap(one, [axis if len(shape) > axis else None for shape in shapes], axis)
    try:
        operands = [
            jax.ShapeDtypeStruct(shape, v.aval.dtype)
            for shape, v in zip(_repeated(shapes), eqn.invars, strict=True)
        ]
        jaxpr = jax.make_jaxpr(every)(*operands).jaxpr
        (same,) = jaxpr.eqns
    except Exception:
        # An operation that has no batching rule or needs this axis may raise anything.
        return False
    return bool(
        same.primitive is eqn.primitive
        and list(same.invars) == list(jaxpr.invars)
        and list(same.outvars) == list(jaxpr.outvars)
        and [shape_of(v) for v in same.outvars] == [shape_of(v) for v in eqn.outvars]
        and dict(same.params) == dict(eqn.params)
    )


def _repeated(shapes: Sequence[Shape]) -> Sequence[Shape]:
    """Broadcasts shapes as elementwise operations do, along axes of length 1."""
    longest = tuple(max(sizes) for sizes in zip(*filter(None, shapes), strict=False))
    fits = all(size in (1, long) for shape in shapes for size, long in zip(shape, longest, strict=False))
    same_rank = len({len(shape) for shape in shapes if shape}) == 1
    return [shape and longest for shape in shapes] if fits and same_rank else shapes


def _only(ids: np.ndarray, kept: Sequence[int], shape: Shape) -> np.ndarray:
    """Broadcasts the ids along the axes `kept` to another shape; they must not differ along other axes."""
    small = narrow(ids)
    sizes = [small.shape[d] if d in kept and d < small.ndim else 1 for d in range(len(shape))]
    return np.broadcast_to(small.reshape(sizes), shape)


def _tiled(ids: np.ndarray, repeats: Sequence[int], shape: Shape) -> np.ndarray:
    small = narrow(ids)
    again = [n if size > 1 else 1 for n, size in zip(repeats, small.shape, strict=True)]
    return np.broadcast_to(np.tile(small, again), shape)


def _along(axis: int, index: Any) -> tuple[Any, ...]:
    return (slice(None),) * axis + (index,)
