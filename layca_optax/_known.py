"""Values that a traced function computes from constants and loop counters alone, usually indices."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np


class Known:
    """A value that can be computed while tracing; it is computed when it is first read.

    Only indices into weights are read. Everything else, such as masks of a whole batch, is never computed.
    """

    def __init__(self, compute: Callable[..., Any], operands: Sequence["Known"] = ()) -> None:
        self._compute, self._operands = compute, operands
        self._value: Any = None
        self.was_read = False

    def read(self) -> np.ndarray | None:
        """Computes the value; returns `None` if that is impossible here (inside a mesh, for instance)."""
        value = self._evaluated()
        return None if value is _FAILED else np.asarray(value)

    def item(self, position: Any) -> "Known":
        """Returns `value[position]`, not computed yet."""
        return Known(lambda value: value[position], [self])

    def _evaluated(self) -> Any:
        # Not recursive: a loop counter that was never read depends on one operand per iteration.
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
    """Wraps a literal or an array that the function closes over; `None` for a tracer of an outer trace."""
    return None if isinstance(value, jax.core.Tracer) else Known(lambda: value)


def results(eqn: Any, operands: Sequence[Known]) -> list[Known]:
    """Wraps the results of an equation whose operands are known."""

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
        # A primitive outside its context may raise anything; its value is unknown then.
        return _FAILED
