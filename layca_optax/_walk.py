"""Goes through a traced function and notes when each weight vector first meets the inputs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.extend
import numpy as np

from layca_optax._known import Known, constant, results
from layca_optax._origin import NOWHERE, Origin, Vectors, joined, moved, narrow, taken, union
from layca_optax._through import refitted, shape_of, through


class Value(NamedTuple):
    """A value of the traced function.

    Attributes:
      origin: which weight vectors it comes from; `None` if it depends on the inputs.
      known: the value itself, if it is computed from constants and loop counters alone.
    """

    origin: Origin | None
    known: Known | None = None


INPUT = Value(None)
CONSTANT = Value(NOWHERE)
_LOOPS = ("scan", "while", "cond")


class Walk:
    """Goes through equations in order and notes when each vector first meets the inputs.

    Args:
      names: the name of each vector's leaf.

    Attributes:
      met: the time of each vector's first meeting with the inputs, counted in meetings; -1 before it.
    """

    def __init__(self, names: list[str]) -> None:
        self.met = np.full(len(names), -1)
        self._names, self._leaf = np.unique(np.array(names, str), return_inverse=True)
        self._vectors = Vectors(len(names))
        self._clock = 0

    def run(self, jaxpr: Any, inputs: Sequence[Value]) -> list[Value]:
        """Goes through a function; returns the values of its results."""
        consts = getattr(jaxpr, "consts", ())
        jaxpr = opened(jaxpr)
        env: dict[Any, Value] = dict(zip(jaxpr.invars, inputs, strict=True))
        env |= {var: Value(NOWHERE, constant(c)) for var, c in zip(jaxpr.constvars, consts, strict=False)}

        def read(atom: Any) -> Value:
            if isinstance(atom, jax.extend.core.Literal):
                return Value(NOWHERE, constant(atom.val))
            return env.get(atom, CONSTANT)

        for eqn in jaxpr.eqns:
            outputs = self._equation(eqn, [read(atom) for atom in eqn.invars])
            # Random keys do not count as inputs: a layer is not applied to noise.
            for var, value in zip(eqn.outvars, outputs, strict=True):
                env[var] = Value(NOWHERE, value.known) if is_key(var) else value
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, eqn: Any, inputs: list[Value]) -> list[Value]:
        name, inner = eqn.primitive.name, _called(eqn)
        known = [value.known for value in inputs if value.known is not None]
        if len(known) == len(inputs) and not eqn.effects and (name in _LOOPS or inner is None):
            return [Value(NOWHERE, result) for result in results(eqn, known)]
        match name:
            case "scan":
                return self._scan(eqn, inputs)
            case "while":
                return self._while(eqn, inputs)
            case "cond":
                return self._cond(eqn, inputs)
            case "optimization_barrier":
                return inputs
        if inner is not None:
            inputs = self._refitted(inputs, eqn.invars, opened(inner).invars)
            return self._refitted(self.run(inner, inputs), opened(inner).outvars, eqn.outvars)
        origins = [value.origin for value in inputs if value.origin is not None]
        if len(origins) < len(inputs):
            self._meet(origins)
            return [INPUT] * len(eqn.outvars)
        return [Value(o) for o in through(eqn, origins, [value.known for value in inputs], self._vectors)]

    def _meet(self, origins: Sequence[Origin]) -> None:
        """Records that these values meet the inputs now."""
        now = [self._met_by(value) for value in origins]
        new = np.concatenate([np.zeros(0, int), *now])
        if new.size:
            self.met[new] = self._clock
            self._clock += 1

    def _met_by(self, value: Origin) -> np.ndarray:
        """Returns the vectors in a value that have not met the inputs before."""
        ids = value.vector_ids()
        own = ids[ids < len(self.met)]
        new = [own[self.met[own] < 0]]
        for group in self._vectors.groups(ids):
            hidden = np.setdiff1d(group.members[self.met[group.members] < 0], own)
            # A block of `w / norm(w)` comes from that block of `w`, and from all others through the norm.
            # To say that it meets the inputs together with all others would be useless.
            beside_own = np.isin(self._leaf[hidden], self._leaf[own]).any()
            if hidden.size and (group.part or beside_own):
                names = self._names[np.unique(self._leaf[hidden])]
                raise ValueError(_cannot_tell(names.tolist(), group.operation))
            new.append(hidden)
        return np.unique(np.concatenate(new))

    def _joined(self, values: Sequence[Value]) -> Value:
        """Returns a value that stands for any of `values`, as after a `cond`."""
        origins = [value.origin for value in values if value.origin is not None]
        if len(origins) == len(values):
            return Value(union(origins))
        self._meet(origins)
        return INPUT

    def _cond(self, eqn: Any, inputs: list[Value]) -> list[Value]:
        (index, *operands), branches = inputs, eqn.params["branches"]
        chosen = None if index.known is None else index.known.read()
        if chosen is not None:
            return self.run(branches[min(max(int(chosen), 0), len(branches) - 1)], operands)
        outputs = [self.run(branch, operands) for branch in branches]
        return [self._joined([index, *values]) for values in zip(*outputs, strict=True)]

    def _scan(self, eqn: Any, inputs: list[Value]) -> list[Value]:
        body, length = eqn.params["jaxpr"], eqn.params["length"]
        first_x = len(inputs) - _num_scanned(eqn.invars, opened(body).invars)
        num_carry = len(eqn.outvars) - _num_scanned(eqn.outvars, opened(body).outvars)
        first = first_x - num_carry
        consts, carry, xs = inputs[:first], inputs[first:first_x], inputs[first_x:]
        shapes = [shape_of(v) for v in eqn.invars[first_x:]]
        ys: list[list[Value]] = []
        for i in reversed(range(length)) if eqn.params["reverse"] else range(length):
            slices = [self._slice(x, shape, i) for x, shape in zip(xs, shapes, strict=True)]
            varying = _watched([*carry, *slices])
            outputs = self.run(body, [*consts, *varying])
            before, carry = carry, outputs[:num_carry]
            ys.append(outputs[num_carry:])
            # Further iterations repeat this one, unless they use other parts of an array.
            parts = inputs if _was_read(varying) else [x for x in xs if _differs(x)]
            if _same(before, carry) and not self._any_unmet(parts):
                carry = _forgotten(carry)
                break
        ys += ys[-1:] * (length - len(ys))
        if eqn.params["reverse"]:
            ys.reverse()
        stacks = [self._stacked([y[j] for y in ys], v) for j, v in enumerate(eqn.outvars[num_carry:])]
        return [*carry, *stacks]

    def _while(self, eqn: Any, inputs: list[Value]) -> list[Value]:
        cond, body = eqn.params["cond_jaxpr"], eqn.params["body_jaxpr"]
        m, n = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
        cond_consts, body_consts, carry = inputs[:m], inputs[m : m + n], inputs[m + n :]
        history = [carry]
        while True:
            (go_on,) = self.run(cond, [*cond_consts, *carry])
            continues = None if go_on.known is None else go_on.known.read()
            if continues is not None and not continues:
                return carry
            clock, varying = self._clock, _watched(carry)
            before, carry = carry, self.run(body, [*body_consts, *varying])
            if continues is None:
                history.append(carry)
                if self._clock == clock:
                    break
            elif _same(before, carry) and not (_was_read(varying) and self._any_unmet(inputs)):
                return _forgotten(carry)
        # The number of iterations is unknown: repeat the body on the union of all carries until it is stable.
        carry = [self._joined(values) for values in zip(*history, strict=True)]
        while True:
            (go_on,) = self.run(cond, [*cond_consts, *carry])
            outputs = self.run(body, [*body_consts, *carry])
            before, carry = carry, [self._joined(values) for values in zip(carry, outputs, strict=True)]
            if _same(before, carry):
                return [self._joined([go_on, value]) for value in carry]

    def _slice(self, x: Value, shape: tuple[int, ...], i: int) -> Value:
        if x.origin is None:
            return x
        part = taken(x.origin, shape, lambda ids: ids[i], self._vectors)
        return Value(part, None if x.known is None else x.known.item(i))

    def _stacked(self, pieces: Sequence[Value], var: Any) -> Value:
        origins = [piece.origin for piece in pieces if piece.origin is not None]
        if len(origins) < len(pieces):
            return self._joined(pieces)
        shape = shape_of(var)
        if all(value is origins[0] for value in origins[1:]):
            # All iterations give the same: one array is enough, however long the loop.
            origins = origins[:1]
        rows = [moved(value, lambda ids: ids[None]) for value in origins]
        stack = joined(rows, [(1, *shape[1:])] * len(rows), 0)
        return Value(moved(stack, lambda ids: np.broadcast_to(ids, shape)))

    def _any_unmet(self, values: Sequence[Value]) -> bool:
        for value in values:
            ids = NOWHERE.vector_ids() if value.origin is None else value.origin.vector_ids()
            members = [group.members for group in self._vectors.groups(ids)]
            own = ids[ids < len(self.met)]
            if (self.met[np.concatenate([own, *members])] < 0).any():
                return True
        return False

    def _refitted(self, values: Sequence[Value], variables: Any, others: Any) -> list[Value]:
        return [
            value
            if value.origin is None or shape_of(v) == shape_of(w)
            else Value(refitted(value.origin, shape_of(v), shape_of(w), self._vectors))
            for value, v, w in zip(values, variables, others, strict=True)
        ]


def _num_scanned(outside: Any, inside: Any) -> int:
    """Counts scanned inputs or stacked outputs: they have one more axis outside the body than inside."""
    return sum(len(shape_of(v)) != len(shape_of(w)) for v, w in zip(outside, inside, strict=True))


def _differs(x: Value) -> bool:
    """Tells whether the entries of axis 0 come from different vectors."""
    return x.origin is not None and any(narrow(ids).shape[0] > 1 for ids in x.origin.apart)


def _watched(values: Sequence[Value]) -> list[Value]:
    """Copies the values, so that `_was_read` can tell whether anything read the copies."""
    same = lambda known: None if known is None else Known(lambda value: value, [known])
    return [Value(value.origin, same(value.known)) for value in values]


def _was_read(values: Sequence[Value]) -> bool:
    return any(value.known is not None and value.known.was_read for value in values)


def _forgotten(values: Sequence[Value]) -> list[Value]:
    return [Value(value.origin) for value in values]


def _same(before: Sequence[Value], after: Sequence[Value]) -> bool:
    pairs = zip((v.origin for v in before), (v.origin for v in after), strict=True)
    return all(a is b or (a is not None and b is not None and a.equals(b)) for a, b in pairs)


def opened(jaxpr: Any) -> Any:
    """Returns the plain jaxpr of a closed one."""
    return jaxpr.jaxpr if hasattr(jaxpr, "jaxpr") else jaxpr


def _called(eqn: Any) -> Any | None:
    """Returns the function that an equation applies to its operands: `jit`, custom derivatives, `remat`, …"""
    for value in eqn.params.values():
        if isinstance(value, jax.extend.core.Jaxpr | jax.extend.core.ClosedJaxpr):
            inner = opened(value)
            if len(inner.invars) == len(eqn.invars) and len(inner.outvars) == len(eqn.outvars):
                return value
    return None


def is_key(atom: Any) -> bool:
    dtype = getattr(atom.aval, "dtype", None)
    return dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)


def _cannot_tell(names: list[str], operation: str) -> str:
    return (
        f"layer_depths cannot order the vectors of {', '.join(map(repr, names))}: a part of the result of"
        f" {operation!r} meets the inputs first, and it is unknown which vectors that part comes from."
        " Pass an fn without that operation (or, if it uses indices, with constants or loop counters as"
        " indices), or a rule under which they are one vector."
    )
