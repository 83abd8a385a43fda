"""SIGTERM and Ctrl-C: a run that is asked to end does so after the epoch."""

import signal
import sys
import threading
from types import FrameType
from typing import Any

# None: the handler is not Python's.
_PYTHONS_OWN = (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler, None)


class Interrupted(Exception):  # noqa: N818 (no error)
    """The run was asked to end and has saved its state; the message says how to continue."""


class Interruption:
    """While entered, SIGTERM and Ctrl-C only set `signal_name`; a second Ctrl-C aborts at once.

    A handler that somebody else has set, as submitit does for its jobs, stays.

    Attributes:
      signal_name: of the signal that arrived, `None` if none did.
    """

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        # Elsewhere Python lets nobody handle signals.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) not in _PYTHONS_OWN:
                    continue
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal_name = signal.Signals(number).name
        # Not KeyboardInterrupt, which would wait for the device and for checkpoints.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        print(f"\n{self.signal_name}: ends after this epoch; Ctrl-C aborts at once", file=sys.stderr)
