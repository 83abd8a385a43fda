"""Counts kernels, bytes and collectives of a compiled program, from its HLO text.

Loop bodies count once, and all branches of a conditional count. An operation reads its operands and writes
its result. If a fusion uses only slices of an operand, only these are read. Fusions can contain collectives.
"""

import re
from collections import Counter
from math import prod
from typing import NamedTuple

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "s32": 4, "u32": 4, "f32": 4}
BYTES |= {"s64": 8, "u64": 8, "f64": 8, "c64": 8}
COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")
# These operations only name arrays; they run nothing.
_NAMES = {"parameter", "constant", "bitcast", "tuple", "get-tuple-element", "after-all", "partition-id"}
_CALLS = {"call", "while", "conditional", "async-start"}
_VIEWS = {"bitcast", "reshape", "copy"}
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_OPERATION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_CALLED = re.compile(r"(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


class Operation(NamedTuple):
    """A line of a computation: `name = shape kind(operands), called=...`."""

    name: str
    shape: str
    kind: str
    operands: tuple[str, ...]
    called: tuple[str, ...]
    position: str  # of a parameter
    channel: str  # of a collective


class Cost(NamedTuple):
    """The cost of running a program once.

    Attributes:
      kernels: number of operations; operations on scalars may be left out (see `cost`).
      bytes: bytes read and written.
      collectives: number of collectives of each kind.
      carried: bytes that one device passes to all collectives together.
    """

    kernels: int
    bytes: int
    collectives: Counter[str]
    carried: int


def num_bytes(shape: str) -> int:
    """Returns the bytes of an array, `f32[2,3]{1,0}`, or of all arrays of a tuple, `(f32[2], bf16[])`."""
    arrays = re.findall(r"(\w+)\[([\d,]*)\]", shape)
    return sum(BYTES.get(dtype, 0) * prod(int(n) for n in dims.split(",") if n) for dtype, dims in arrays)


def computations(text: str) -> tuple[dict[str, list[Operation]], str]:
    """Parses the operations of every computation; also returns the name of the entry computation.

    Raises:
      ValueError: the text is not that of a compiled program.
    """
    parts: dict[str, list[Operation]] = {}
    current: list[Operation] = []
    entry = ""
    for line in text.splitlines():
        if match := _OPERATION.match(line):
            name, shape, kind, rest = match.groups()
            inside = re.split(r"\), |\)$", rest, maxsplit=1)[0]
            branches = [b.strip().lstrip("%") for group in _BRANCHES.findall(rest) for b in group.split(",")]
            operands = tuple(re.findall(r"%([\w.\-]+)", inside))
            called = (*_CALLED.findall(rest), *branches)
            channel = (re.findall(r"channel_id=(\d+)", rest) or [name])[0]
            current.append(Operation(name, shape, kind, operands, called, inside, channel))
        elif match := _HEAD.match(line):
            current = parts.setdefault(match.group(2), [])
            entry = match.group(2) if match.group(1) else entry
    if not entry:
        raise ValueError("no entry computation: this is not the text of a compiled program")
    return parts, entry


def cost(text: str, *, scalars: bool = True) -> Cost:
    """Counts the cost of a program; `scalars` says whether operations on scalars count as kernels."""
    parts, entry = computations(text)
    kernels, moved = 0, 0
    todo = [entry]
    for computation in todo:
        shapes = {operation.name: operation.shape for operation in parts[computation]}
        for operation in parts[computation]:
            kind = operation.kind
            if kind in _CALLS:
                todo += [name for name in operation.called if name in parts]
                continue
            if kind in _NAMES or kind.endswith("-done"):
                continue
            read = [shapes.get(name, "") for name in operation.operands]
            kernels += scalars or any(re.search(r"\[\d", shape) for shape in (operation.shape, *read))
            if kind == "fusion":
                moved += num_bytes(operation.shape) + _read_by_fusion(parts[operation.called[0]], read)
            else:
                moved += num_bytes(operation.shape) + sum(map(num_bytes, read))
    collectives = _collectives(parts)
    kinds = Counter(kind for kind, _ in collectives)
    return Cost(kernels, moved, kinds, sum(carried for _, carried in collectives))


def _collectives(parts: dict[str, list[Operation]]) -> list[tuple[str, int]]:
    """Returns the kind of every collective and the bytes that one device passes to it."""
    found = {}
    for computation, operations in parts.items():
        shapes = {operation.name: operation.shape for operation in operations}
        for operation in operations:
            kind = operation.kind.removesuffix("-start")
            if kind in COLLECTIVES:
                carried = sum(num_bytes(shapes.get(name, "")) for name in operation.operands)
                # An asynchronous collective occurs in several fusions: count it once.
                once = operation.channel
                if computation.startswith("all-reduce-scatter"):
                    # A TPU's reduce-scatter is decomposed in a fusion of this name; all share a channel.
                    kind, once = "reduce-scatter", computation
                found.setdefault(once, (kind, carried))
    return list(found.values())


def _read_by_fusion(body: list[Operation], operands: list[str]) -> int:
    total = 0
    for number, shape in enumerate(operands):
        names = {o.name for o in body if o.kind == "parameter" and o.position == str(number)}
        whole, read = num_bytes(shape), 0
        for operation in body:
            if names.isdisjoint(operation.operands):
                continue
            if operation.kind in _VIEWS:
                names.add(operation.name)
            elif operation.kind in ("slice", "dynamic-slice"):
                read += num_bytes(operation.shape)
            else:
                read += whole
        total += min(whole, read)
    return total
