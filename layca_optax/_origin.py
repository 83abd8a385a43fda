"""Which weight vectors the entries of a value come from.

The worked example at the top of `_depth.py` shows what these arrays are. They are views of NumPy: along an
axis whose entries are all alike the stride is 0, so the array of a kernel that is one vector is one number.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

# In an array of numbers: this entry comes from no weight that rotates.
NONE = -1

Shape = tuple[int, ...]


class Origin(NamedTuple):
    """Where the entries of a value come from: numbers of vectors, or of groups of them (see `Vectors`).

    Attributes:
      everywhere: numbers that every entry comes from.
      apart: arrays of the value's shape with a number for every entry, or `NONE`. An entry comes from its
        number in each array; that keeps memory linear where `w / norm(w)` comes from each row and from all.
    """

    everywhere: frozenset[int] = frozenset()
    apart: tuple[np.ndarray, ...] = ()

    def numbers(self) -> np.ndarray:
        """All numbers in it, each once."""
        pieces = [np.fromiter(self.everywhere, int), *(narrow(ids).ravel() for ids in self.apart)]
        numbers = np.unique(np.concatenate(pieces))
        return numbers[numbers != NONE]

    def equals(self, other: "Origin") -> bool:
        return self.everywhere == other.everywhere and ({*map(_key, self.apart)} == {*map(_key, other.apart)})


# What a constant, a parameter that does not rotate and anything made of them comes from.
NOWHERE = Origin()


class Group(NamedTuple):
    """Vectors that an operation has brought together.

    Attributes:
      members: the numbers of the vectors, ascending.
      operation: the name of the primitive.
      mixed: every entry comes from all members, as in a sum. Otherwise from some of them, nobody knows which.
      part: not mixed, and only a part of the entries is left, which may not come from all members.
    """

    members: np.ndarray
    operation: str
    mixed: bool
    part: bool = False


class Vectors:
    """The numbers of all weight vectors, 0 to `count` - 1, and behind them those of groups of vectors."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._groups: list[Group] = []
        self._numbers: dict[tuple[bytes, str, bool, bool], int] = {}

    def groups(self, numbers: Iterable[int]) -> list[Group]:
        """The groups among some numbers."""
        return [self._groups[n - self.count] for n in numbers if n >= self.count]

    def grouped(self, numbers: np.ndarray, operation: str, mixed: bool) -> int:
        """The number of the group of all these vectors and groups; of the vector, if it is only one."""
        distinct = np.unique(numbers[numbers != NONE])
        if distinct.size < 2:
            return int(distinct[0]) if distinct.size else NONE
        groups = self.groups(distinct)
        members = [distinct[distinct < self.count], *(group.members for group in groups)]
        torn = [group.operation for group in groups if group.part]
        operation, mixed = (torn[0], False) if torn else (operation, mixed)
        return self._number(Group(np.unique(np.concatenate(members)), operation, mixed, bool(torn)))

    def part_of(self, number: int) -> int:
        """The number for a part of the entries that a group was spread over."""
        (group,) = self.groups([number]) or [None]
        return number if group is None or group.mixed else self._number(group._replace(part=True))

    def _number(self, group: Group) -> int:
        key = (group.members.tobytes(), group.operation, group.mixed, group.part)
        if key not in self._numbers:
            self._numbers[key] = self.count + len(self._groups)
            self._groups.append(group)
        return self._numbers[key]


def shape_of(atom: Any) -> Shape:
    """The shape of a variable or literal; `()` for what has none."""
    return tuple(getattr(atom.aval, "shape", ()))


def narrow(ids: np.ndarray) -> np.ndarray:
    """The array with length 1 along every axis on which its entries are all alike."""
    first = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in ids.strides)
    ids = ids[first]
    for axis in range(ids.ndim):
        if ids.shape[axis] > 1 and (ids == ids.take([0], axis)).all():
            ids = ids.take([0], axis)
    return ids


def origin(everywhere: Iterable[int], arrays: Iterable[np.ndarray]) -> Origin:
    """The shortest form: no array twice, and none with the same number everywhere."""
    alike, apart = set(everywhere), {}
    for ids in arrays:
        small = narrow(ids)
        if small.size == 1:
            alike.add(int(small.ravel()[0]))
        elif small.size > 1:
            apart[_key(ids)] = np.broadcast_to(small, ids.shape)
    return Origin(frozenset(alike - {NONE}), tuple(apart.values()))


def union(origins: Sequence[Origin]) -> Origin:
    """What a value comes from, each of whose entries is made of the same entry of all operands."""
    everywhere = frozenset().union(*(o.everywhere for o in origins))
    return origin(everywhere, [ids for o in origins for ids in o.apart])


def terms(value: Origin, shape: Shape) -> list[np.ndarray]:
    """The arrays of a value of this shape, with one for each number that is everywhere."""
    return [*(np.broadcast_to(np.int32(n), shape) for n in sorted(value.everywhere)), *value.apart]


def moved(value: Origin, move: Callable[[np.ndarray], np.ndarray]) -> Origin:
    """The value with its entries elsewhere: transposed, repeated, …"""
    return origin(value.everywhere, [move(ids) for ids in value.apart])


def taken(value: Origin, shape: Shape, take: Callable[[np.ndarray], np.ndarray], vectors: Vectors) -> Origin:
    """As `moved`, where `take` may leave entries out, so that only a part of a group may be left."""
    arrays = []
    for before in terms(value, shape):
        after = take(before)
        small = narrow(after)
        for number in np.unique(small[small >= vectors.count]):
            if _entries(after, number) < _entries(before, number):
                small = np.where(small == number, vectors.part_of(int(number)), small)
        arrays.append(np.broadcast_to(small, after.shape))
    return origin((), arrays)


def joined(values: Sequence[Origin], shapes: Sequence[Shape], axis: int) -> Origin:
    """Values of these shapes one after the other along an axis."""
    rows = [terms(value, shape) for value, shape in zip(values, shapes, strict=True)]
    arrays = []
    for i in range(max(map(len, rows), default=0)):
        pieces = [
            row[i] if i < len(row) else np.broadcast_to(np.int32(NONE), shape)
            for row, shape in zip(rows, shapes, strict=True)
        ]
        small = [narrow(piece) for piece in pieces]
        others = np.broadcast_shapes(*(_without(s.shape, axis) for s in small))
        full = [(*others[:axis], piece.shape[axis], *others[axis:]) for piece in pieces]
        ids = np.concatenate([np.broadcast_to(s, f) for s, f in zip(small, full, strict=True)], axis)
        whole = (*shapes[0][:axis], ids.shape[axis], *shapes[0][axis + 1 :])
        arrays.append(np.broadcast_to(ids, whole))
    return origin((), arrays)


def merged(ids: np.ndarray, axes: Sequence[int], operation: str, mixed: bool, vectors: Vectors) -> np.ndarray:
    """The array with length 1 along some axes: what differed there is one group."""
    small = narrow(ids)
    lost = [axis for axis in axes if small.shape[axis] > 1]
    if lost:
        rest = _without(small.shape, *lost)
        rows = np.moveaxis(small, lost, range(-len(lost), 0)).reshape(math.prod(rest), -1)
        numbers = [vectors.grouped(row, operation, mixed) for row in rows]
        small = np.expand_dims(np.array(numbers, np.int32).reshape(rest), lost)
    shape = [1 if axis in axes else size for axis, size in enumerate(ids.shape)]
    return np.broadcast_to(small, shape)


def placed(ids: np.ndarray, places: Sequence[int], ndim: int) -> np.ndarray:
    """The array with `ndim` axes: axis `i` becomes axis `places[i]`, and all others have length 1."""
    sizes = [1] * ndim
    for size, place in zip(ids.shape, places, strict=True):
        sizes[place] = size
    return ids.reshape(sizes)


def reshaped(ids: np.ndarray, shape: Shape) -> np.ndarray:
    """As `ids.reshape(shape)`; axes along which all entries are alike are not written out."""
    if ids.size == 0:
        return np.broadcast_to(np.int32(NONE), shape)
    small = narrow(ids)
    before: list[int] = []
    after: list[int] = []
    for old, new in _runs(ids.shape, shape):
        differ = any(small.shape[axis] > 1 for axis in old)
        before += [ids.shape[axis] if differ else 1 for axis in old]
        after += [shape[axis] if differ else 1 for axis in new]
    return np.broadcast_to(np.broadcast_to(small, before).reshape(after), shape)


def _runs(old: Shape, new: Shape) -> Iterable[tuple[range, range]]:
    """Pairs of the shortest runs of axes that hold equally many entries before and after a reshape."""
    i = j = 0
    while i < len(old) and j < len(new):
        a, b = i + 1, j + 1
        while math.prod(old[i:a]) != math.prod(new[j:b]):
            if math.prod(old[i:a]) < math.prod(new[j:b]):
                a += 1
            else:
                b += 1
        yield range(i, a), range(j, b)
        i, j = a, b
    # Axes of length 1.
    yield range(i, len(old)), range(j, len(new))


def _entries(ids: np.ndarray, number: int) -> int:
    small = narrow(ids)
    return int((small == number).sum()) * (ids.size // max(small.size, 1))


def _without(shape: Shape, *axes: int) -> Shape:
    return tuple(size for axis, size in enumerate(shape) if axis not in axes)


def _key(ids: np.ndarray) -> tuple[Shape, Shape, bytes]:
    small = narrow(ids)
    return ids.shape, small.shape, np.ascontiguousarray(small).tobytes()
