"""Computes the origins of results of gathers, scatters, dynamic slices and dynamic updates."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from layca_optax._known import Known
from layca_optax._origin import (
    NONE,
    Origin,
    Shape,
    Vectors,
    merged,
    moved,
    narrow,
    origin,
    placed,
    shape_of,
    taken,
    terms,
    union,
)

# The positions to read or write, one array per axis of the operand; the arrays broadcast against each other.
_Index = list[np.ndarray]


def looked_up(
    eqn: Any, operands: Sequence[Origin], known: Sequence[Known | None], vectors: Vectors
) -> Origin:
    """Returns the origin of the result of a `dynamic_slice` or `gather`."""
    value, shape, result = operands[0], shape_of(eqn.invars[0]), shape_of(eqn.outvars[0])
    sizes, dims = eqn.params["slice_sizes"], eqn.params.get("dimension_numbers")
    starts = _read(known[1:]) if value.apart else None
    if starts is None:
        # Unknown indices: the result may come from any entry along the axes that they index.
        chosen = dims.start_index_map if dims else range(len(shape))
        cut = [d for d in chosen if sizes[d] < shape[d]]
        blurred = lambda ids: np.broadcast_to(merged(ids, cut, eqn.primitive.name, False, vectors), shape)
        value = moved(value, blurred)
        starts = [np.zeros(shape_of(v), int) for v in eqn.invars[1:]]
    index = _gather_index(starts[0], _names(dims), sizes, shape, len(result)) if dims else None
    index = index or _slice_index(starts, sizes, shape)
    part = taken(value, shape, lambda ids: _at(ids, index, result), vectors)
    return union([part, *(Origin(frozenset(map(int, other.vector_ids()))) for other in operands[1:])])


def written(eqn: Any, operands: Sequence[Origin], known: Sequence[Known | None]) -> Origin | None:
    """Returns the origin of a `dynamic_update_slice` or `scatter`; `None` if its indices are unknown."""
    shape, dims = shape_of(eqn.invars[0]), eqn.params.get("dimension_numbers")
    at = slice(1, 2) if dims else slice(2, None)
    update, of_update = (
        (operands[2], shape_of(eqn.invars[2])) if dims else (operands[1], shape_of(eqn.invars[1]))
    )
    starts = _read(known[at])
    if starts is None:
        return None
    if dims:
        whole = [d for d in range(len(shape)) if d not in _one_entry(_names(dims))]
        sizes = [1] * len(shape)
        for d, axis in zip(whole, dims.update_window_dims, strict=True):
            sizes[d] = of_update[axis]
        index = _gather_index(starts[0], _names(dims), sizes, shape, len(of_update))
    else:
        index = _slice_index(starts, of_update, shape)
    kept = [
        _overwritten(ids, np.full([1] * len(of_update), NONE), index) for ids in terms(operands[0], shape)
    ]
    nothing = np.broadcast_to(np.int32(NONE), shape)
    new = [_overwritten(nothing, narrow(ids), index) for ids in terms(update, of_update)]
    return origin((), [*kept, *new])


def _read(known: Sequence[Known | None]) -> list[np.ndarray] | None:
    values = [value.read() if value else None for value in known]
    read = [value for value in values if value is not None]
    return read if len(read) == len(values) else None


def _at(ids: np.ndarray, index: _Index, shape: Shape) -> np.ndarray:
    """Returns `ids[index]`, broadcast to this shape."""
    small = narrow(ids)
    one = np.zeros([1] * len(shape), int)
    return np.broadcast_to(
        small[tuple(i if n > 1 else one for i, n in zip(index, small.shape, strict=True))], shape
    )


def _overwritten(ids: np.ndarray, entries: np.ndarray, index: _Index) -> np.ndarray:
    """Returns `ids.at[index].set(entries)` without expanding axes that are overwritten whole and alike."""
    small, sizes, at = narrow(ids), [], []
    for size, alike, i in zip(ids.shape, small.shape, index, strict=True):
        varies = any(n > 1 and m > 1 for n, m in zip(i.shape, entries.shape, strict=True))
        short = alike == 1 and not varies and np.array_equal(i.ravel(), np.arange(size))
        sizes.append(1 if short else size)
        at.append(np.zeros([1] * i.ndim, int) if short else i)
    result = np.array(np.broadcast_to(small, sizes))
    result[tuple(at)] = entries
    return np.broadcast_to(result, ids.shape)


def _slice_index(starts: Sequence[np.ndarray], sizes: Sequence[int], shape: Shape) -> _Index:
    starts = [np.clip(start, 0, n - size) for start, n, size in zip(starts, shape, sizes, strict=True)]
    return [
        start + _arange(size, d, len(shape))
        for d, (start, size) in enumerate(zip(starts, sizes, strict=True))
    ]


def _gather_index(
    indices: np.ndarray, dims: dict[str, Shape], sizes: Sequence[int], shape: Shape, ndim: int
) -> _Index:
    """Returns the operand's positions for a gather's result, or a scatter's updates, with `ndim` axes."""
    batch = [axis for axis in range(ndim) if axis not in dims["window"]]
    whole = [d for d in range(len(shape)) if d not in _one_entry(dims)]
    result = []
    for d, size in enumerate(shape):
        at = np.zeros([1] * ndim, int)
        if d in dims["to"]:
            start = np.clip(indices[..., dims["to"].index(d)], 0, size - sizes[d])
            at = placed(start, batch, ndim)
        elif d in dims["batch"]:
            at = _arange(size, batch[dims["of_indices"][dims["batch"].index(d)]], ndim)
        if d in whole:
            at = at + _arange(sizes[d], dims["window"][whole.index(d)], ndim)
        result.append(at)
    return result


def _names(dims: Any) -> dict[str, Shape]:
    """Gives the fields of `GatherDimensionNumbers` and `ScatterDimensionNumbers` common names."""
    if hasattr(dims, "offset_dims"):
        window, one, to = dims.offset_dims, dims.collapsed_slice_dims, dims.start_index_map
        of_indices = dims.start_indices_batching_dims
    else:
        window, one, to = (
            dims.update_window_dims,
            dims.inserted_window_dims,
            dims.scatter_dims_to_operand_dims,
        )
        of_indices = dims.scatter_indices_batching_dims
    return {
        "window": window,
        "one": one,
        "to": to,
        "batch": dims.operand_batching_dims,
        "of_indices": of_indices,
    }


def _one_entry(dims: dict[str, Shape]) -> set[int]:
    return {*dims["one"], *dims["batch"]}


def _arange(size: int, axis: int, ndim: int) -> np.ndarray:
    return placed(np.arange(size), [axis], ndim)
