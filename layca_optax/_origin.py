"""Records which weight vectors the entries of a value come from, in arrays of vector ids.

The worked example at the top of `_depth.py` shows such arrays. They are broadcast NumPy views: along an axis
on which all entries are equal the stride is 0, so the ids of a kernel that is one vector take one number.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

# In an array of vector ids: the entry comes from no weight that rotates.
NONE = -1

Shape = tuple[int, ...]


class Origin(NamedTuple):
    """Where the entries of a value come from: ids of vectors, or of groups of vectors (see `Vectors`).

    Attributes:
      everywhere: ids that every entry comes from.
      apart: arrays of the value's shape that hold an id per entry, or `NONE`. An entry comes from its id in
        every array. In `w / norm(w)`, one array holds the row's own id, another the group of all rows; sets
        of ids per entry would take quadratic memory there.
    """

    everywhere: frozenset[int] = frozenset()
    apart: tuple[np.ndarray, ...] = ()

    def vector_ids(self) -> np.ndarray:
        """Returns all ids in it, each once, in ascending order."""
        pieces = [np.fromiter(self.everywhere, int), *(narrow(ids).ravel() for ids in self.apart)]
        ids = np.unique(np.concatenate(pieces))
        return ids[ids != NONE]

    def equals(self, other: "Origin") -> bool:
        return self.everywhere == other.everywhere and ({*map(_key, self.apart)} == {*map(_key, other.apart)})


# The origin of constants, of parameters that do not rotate, and of anything computed from these alone.
NOWHERE = Origin()


class Group(NamedTuple):
    """Vectors that an operation has combined.

    Attributes:
      members: the ids of the vectors, ascending.
      operation: the name of the primitive.
      mixed: whether every entry comes from all members, as in a sum. If not, it is unknown from which.
      part: whether the group is not mixed and some of its entries were dropped, so that what is left may not
        come from all members.
    """

    members: np.ndarray
    operation: str
    mixed: bool
    part: bool = False


class Vectors:
    """Assigns ids: 0 to `count` - 1 are the weight vectors, all larger ones are groups of vectors."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._groups: list[Group] = []
        self._ids: dict[tuple[bytes, str, bool, bool], int] = {}

    def groups(self, ids: Iterable[int]) -> list[Group]:
        """Returns the groups among these ids."""
        return [self._groups[i - self.count] for i in ids if i >= self.count]

    def grouped(self, ids: np.ndarray, operation: str, mixed: bool) -> int:
        """Returns the id of the group that joins all these vectors and groups; a single one keeps its id."""
        distinct = np.unique(ids[ids != NONE])
        if distinct.size < 2:
            return int(distinct[0]) if distinct.size else NONE
        groups = self.groups(distinct)
        members = [distinct[distinct < self.count], *(group.members for group in groups)]
        torn = [group.operation for group in groups if group.part]
        operation, mixed = (torn[0], False) if torn else (operation, mixed)
        return self._id(Group(np.unique(np.concatenate(members)), operation, mixed, bool(torn)))

    def part_of(self, vector_id: int) -> int:
        """Returns the id to use when only some of the entries with this id are kept."""
        (group,) = self.groups([vector_id]) or [None]
        return vector_id if group is None or group.mixed else self._id(group._replace(part=True))

    def _id(self, group: Group) -> int:
        key = (group.members.tobytes(), group.operation, group.mixed, group.part)
        if key not in self._ids:
            self._ids[key] = self.count + len(self._groups)
            self._groups.append(group)
        return self._ids[key]


def shape_of(atom: Any) -> Shape:
    """Returns the shape of a variable or literal; `()` if it has none."""
    return tuple(getattr(atom.aval, "shape", ()))


def narrow(ids: np.ndarray) -> np.ndarray:
    """Shortens the array to length 1 along every axis on which all its entries are equal."""
    first = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in ids.strides)
    ids = ids[first]
    for axis in range(ids.ndim):
        if ids.shape[axis] > 1 and (ids == ids.take([0], axis)).all():
            ids = ids.take([0], axis)
    return ids


def origin(everywhere: Iterable[int], arrays: Iterable[np.ndarray]) -> Origin:
    """Makes an `Origin` in its shortest form: no array twice, and none that holds one id everywhere."""
    constant, apart = set(everywhere), {}
    for ids in arrays:
        small = narrow(ids)
        if small.size == 1:
            constant.add(int(small.ravel()[0]))
        elif small.size > 1:
            apart[_key(ids)] = np.broadcast_to(small, ids.shape)
    return Origin(frozenset(constant - {NONE}), tuple(apart.values()))


def union(origins: Sequence[Origin]) -> Origin:
    """Returns the origin of an elementwise result, given those of the operands."""
    everywhere = frozenset().union(*(o.everywhere for o in origins))
    return origin(everywhere, [ids for o in origins for ids in o.apart])


def terms(value: Origin, shape: Shape) -> list[np.ndarray]:
    """Returns all ids of a value of this shape as arrays, one for each id in `everywhere`."""
    return [*(np.broadcast_to(np.int32(i), shape) for i in sorted(value.everywhere)), *value.apart]


def moved(value: Origin, move: Callable[[np.ndarray], np.ndarray]) -> Origin:
    """Applies `move`, which keeps all entries (a transpose, a repeat, …), to every array of ids."""
    return origin(value.everywhere, [move(ids) for ids in value.apart])


def taken(value: Origin, shape: Shape, take: Callable[[np.ndarray], np.ndarray], vectors: Vectors) -> Origin:
    """Does what `moved` does for a `take` that may drop entries, after which a group may be a part."""
    arrays = []
    for before in terms(value, shape):
        after = take(before)
        small = narrow(after)
        for group in np.unique(small[small >= vectors.count]):
            if _entries(after, group) < _entries(before, group):
                small = np.where(small == group, vectors.part_of(int(group)), small)
        arrays.append(np.broadcast_to(small, after.shape))
    return origin((), arrays)


def joined(values: Sequence[Origin], shapes: Sequence[Shape], axis: int) -> Origin:
    """Concatenates values of these shapes along an axis."""
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
    """Reduces the array to length 1 along some axes; ids that differ there become one group."""
    small = narrow(ids)
    lost = [axis for axis in axes if small.shape[axis] > 1]
    if lost:
        rest = _without(small.shape, *lost)
        rows = np.moveaxis(small, lost, range(-len(lost), 0)).reshape(math.prod(rest), -1)
        groups = [vectors.grouped(row, operation, mixed) for row in rows]
        small = np.expand_dims(np.array(groups, np.int32).reshape(rest), lost)
    shape = [1 if axis in axes else size for axis, size in enumerate(ids.shape)]
    return np.broadcast_to(small, shape)


def placed(ids: np.ndarray, places: Sequence[int], ndim: int) -> np.ndarray:
    """Reshapes to `ndim` axes: axis `i` becomes axis `places[i]`, and all others have length 1."""
    sizes = [1] * ndim
    for size, place in zip(ids.shape, places, strict=True):
        sizes[place] = size
    return ids.reshape(sizes)


def reshaped(ids: np.ndarray, shape: Shape) -> np.ndarray:
    """Returns `ids.reshape(shape)` without expanding axes along which all entries are equal."""
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
    """Yields, for a reshape, pairs of the shortest runs of old and new axes with equally many entries."""
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
    # What is left are axes of length 1.
    yield range(i, len(old)), range(j, len(new))


def _entries(ids: np.ndarray, vector_id: int) -> int:
    small = narrow(ids)
    return int((small == vector_id).sum()) * (ids.size // max(small.size, 1))


def _without(shape: Shape, *axes: int) -> Shape:
    return tuple(size for axis, size in enumerate(shape) if axis not in axes)


def _key(ids: np.ndarray) -> tuple[Shape, Shape, bytes]:
    small = narrow(ids)
    return ids.shape, small.shape, np.ascontiguousarray(small).tobytes()
