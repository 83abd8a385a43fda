"""Which weight vectors a value is made of, and along which of its axes they lie."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

# Operations whose results have, entry by entry, what their operands have.
# fmt: off
_ELEMENTWISE = {
    "abs", "add", "add_any", "and", "clamp", "convert_element_type", "copy", "copy_p", "cos", "div",
    "eq", "erf", "exp", "exp2", "expm1", "ge", "gt", "integer_pow", "is_finite", "le", "log", "log1p",
    "logistic", "lt", "max", "min", "mul", "ne", "neg", "not", "or", "pow", "pvary",
    "reduce_precision", "round", "rsqrt", "select_n", "sharding_constraint", "sign", "sin", "sqrt",
    "square", "sub", "tanh",
}
# fmt: on


class Origin(NamedTuple):
    """Where in the parameters a value comes from.

    Attributes:
      numbers: numbers of weight vectors. The last axis holds a set, filled up with -1; the axes before it
        are the axes `dims` of the value, in which different entries come from different vectors.
      dims: ascending axes of the value.
    """

    numbers: np.ndarray
    dims: tuple[int, ...]

    def vectors(self) -> np.ndarray:
        """The numbers of all vectors in it."""
        return np.unique(self.numbers[self.numbers >= 0])

    def equals(self, other: "Origin") -> bool:
        return self.dims == other.dims and np.array_equal(self.numbers, other.numbers)

    def merged(self) -> "Origin":
        """The same vectors, anywhere in the value."""
        return self.moved({})

    def moved(self, to: Mapping[int, int]) -> "Origin":
        """Axis `d` becomes `to[d]`; axes that are not in `to` are no longer told apart."""
        kept = sorted((d for d in self.dims if d in to), key=to.__getitem__)
        lost = [d for d in self.dims if d not in to]
        numbers = self.numbers.transpose(*(self.dims.index(d) for d in [*kept, *lost]), -1)
        numbers = numbers.reshape(*numbers.shape[: len(kept)], -1)
        return Origin(_as_sets(numbers), tuple(to[d] for d in kept))

    def part(self, dim: int, entries: int | slice) -> "Origin":
        """`value[..., entries, ...]` along one axis; a single entry takes the axis away."""
        numbers, dims = self.numbers, self.dims
        if dim in dims:
            numbers = numbers[(slice(None),) * dims.index(dim) + (entries,)]
        if isinstance(entries, int):
            dims = tuple(d - (d > dim) for d in dims if d != dim)
        return Origin(numbers, dims)

    def along(self, sizes: Mapping[int, int]) -> np.ndarray:
        """`numbers` with an axis for each of `sizes`, in ascending order."""
        mine = dict(zip(self.dims, self.numbers.shape, strict=False))
        numbers = self.numbers.reshape(*(mine.get(d, 1) for d in sorted(sizes)), -1)
        return np.broadcast_to(numbers, (*(sizes[d] for d in sorted(sizes)), numbers.shape[-1]))


def from_params(numbers: np.ndarray, dims: tuple[int, ...]) -> Origin:
    """A leaf whose axes `dims` enumerate its vectors, which have these numbers."""
    return Origin(numbers[..., None], dims)


# What a constant, an input that does not rotate and anything made of them comes from.
NOWHERE = Origin(np.zeros(0, int), ())


def union(origins: Sequence[Origin]) -> Origin:
    """What a value comes from whose every entry is made of the same entries of all of `origins`."""
    sizes = {d: n for o in origins for d, n in zip(o.dims, o.numbers.shape, strict=False)}
    numbers = np.concatenate([o.along(sizes) for o in (*origins, NOWHERE)], axis=-1)
    return Origin(_as_sets(numbers), tuple(sorted(sizes)))


def joined(origins: Sequence[Origin], dim: int, lengths: Sequence[int]) -> Origin:
    """Values one after the other along axis `dim`."""
    sizes = {d: n for o in origins for d, n in zip(o.dims, o.numbers.shape, strict=False)}
    pieces = [o.along({**sizes, dim: n}) for o, n in zip(origins, lengths, strict=True)]
    widest = max(piece.shape[-1] for piece in pieces)
    fill = [[(0, 0)] * (piece.ndim - 1) + [(0, widest - piece.shape[-1])] for piece in pieces]
    filled = [np.pad(piece, f, constant_values=-1) for piece, f in zip(pieces, fill, strict=True)]
    dims = sorted({*sizes, dim})
    return Origin(np.concatenate(filled, axis=dims.index(dim)), tuple(dims))


def stacked(origins: Sequence[Origin], dim: int = 0) -> Origin:
    """Values one after the other along a new axis `dim`."""
    apart = [o.moved({d: d + (d >= dim) for d in o.dims}) for o in origins]
    return joined(apart, dim, [1] * len(apart))


def through(eqn: Any, origins: Sequence[Origin]) -> list[Origin]:
    """What the results of an operation come from. Where the axes cannot be followed, they are merged."""
    name, params = eqn.primitive.name, eqn.params
    first = origins[0] if origins else NOWHERE
    if name == "stack":
        return [stacked(origins, params["axis"])]
    if name == "concatenate":
        dim = params["dimension"]
        return [joined(origins, dim, [v.aval.shape[dim] for v in eqn.invars])]
    if not any(origin.dims for origin in origins):
        return [union(origins)] * len(eqn.outvars)
    before, after = (tuple(vars_[0].aval.shape) for vars_ in (eqn.invars, eqn.outvars))
    if name in _ELEMENTWISE:
        return [union(origins)]
    if name == "transpose":
        return [first.moved({d: i for i, d in enumerate(params["permutation"])})]
    if name == "broadcast_in_dim":
        to = enumerate(params["broadcast_dimensions"])
        return [first.moved({d: new for d, new in to if before[d] == after[new]})]
    if name in ("reshape", "squeeze", "expand_dims"):
        return [first.moved(_kept_by_reshape(before, after))]
    if name.startswith("reduce_") and "axes" in params:
        left = [d for d in range(len(before)) if d not in params["axes"]]
        return [union(origins).moved({d: i for i, d in enumerate(left)})] * len(eqn.outvars)
    if name == "slice":
        strides = params["strides"] or [1] * len(before)
        limits = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
        for dim, limit in enumerate(limits):
            first = first.part(dim, slice(*limit))
        return [first]
    if name == "split":
        ends = np.cumsum([0, *params["sizes"]])
        return [first.part(params["axis"], slice(a, b)) for a, b in pairwise(ends)]
    if name == "unstack":
        return [first.part(params["axis"], i) for i in range(len(eqn.outvars))]
    return [union([origin.merged() for origin in origins])] * len(eqn.outvars)


def _kept_by_reshape(before: tuple[int, ...], after: tuple[int, ...]) -> dict[int, int]:
    # An axis survives if it is as long as before and steps over as many entries.
    new = {(math.prod(after[d:]), size): d for d, size in enumerate(after) if size > 1}
    old = {d: (math.prod(before[d:]), size) for d, size in enumerate(before) if size > 1}
    return {d: new[key] for d, key in old.items() if key in new}


def _as_sets(numbers: np.ndarray) -> np.ndarray:
    """Each number once along the last axis, descending, with no more -1 behind them than needed."""
    numbers = -np.sort(-numbers, axis=-1)
    repeated = np.diff(numbers, axis=-1, prepend=-2) == 0
    numbers = -np.sort(-np.where(repeated, -1, numbers), axis=-1)
    return numbers[..., : int((numbers >= 0).sum(axis=-1).max(initial=0))]
