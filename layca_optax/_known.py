"""Values that a traced function computes from constants and loop counters alone: indices, mostly."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np


class Known:
    """A value that can be computed while tracing, and is computed when it is first read.

    Most are never read: only indices into weights are. Masks of the size of a batch stay uncomputed.
    """

    def __init__(self, compute: Callable[..., Any], operands: Sequence["Known"] = ()) -> None:
        self._compute, self._operands = compute, operands
        self._value: Any = None
        self.was_read = False

    def read(self) -> np.ndarray | None:
        """The value, or `None` if it cannot be computed here (inside a mesh, for instance)."""
        value = self._evaluated()
        return None if value is _FAILED else np.asarray(value)

    def item(self, position: Any) -> "Known":
        """`value[position]`."""
        return Known(lambda value: value[position], [self])

    def _evaluated(self) -> Any:
        # Not by recursion: the counter of a loop that nobody read has one operand per iteration behind it.
        waiting = [self]
        while waiting:
            known = waiting[-1]
            unread = [operand for operand in known._operands if not operand.was_read]
            if unread:
                waiting += unread
                continue
            waiting.pop()
            if not known.was_read:
                known._value = _attempt(known._compute, [operand._value for operand in known._operands])
                known.was_read = True
        return self._value


_FAILED = object()


def constant(value: Any) -> Known | None:
    """A literal or an array that the function closes over; `None` for one that is traced further out."""
    return None if isinstance(value, jax.core.Tracer) else Known(lambda: value)


def results(eqn: Any, operands: Sequence[Known]) -> list[Known]:
    """The results of an equation whose operands are known."""

    def bind(*values: Any) -> list[Any]:
        result = eqn.primitive.bind(*values, **eqn.params)
        return result if eqn.primitive.multiple_results else [result]

    together = Known(bind, operands)
    return [together.item(i) for i in range(len(eqn.outvars))]


def _attempt(compute: Callable[..., Any], operands: list[Any]) -> Any:
    if any(operand is _FAILED for operand in operands):
        return _FAILED
    try:
        with jax.ensure_compile_time_eval():
            return compute(*operands)
    except Exception:
        # Whatever a primitive raises outside of its context, its value is then unknown.
        return _FAILED
