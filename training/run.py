"""Keeps a run in its folder from the first epoch to the last, resumes it, and ends it after a signal."""

import os
import shlex
import signal
import sys
import threading
from contextlib import ExitStack, closing
from importlib.util import find_spec
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp

from data import Source
from data.writing import FileError
from training.checkpoints import Checkpoints, DamagedError, OtherStateError
from training.config import Config, UsageError, comparison
from training.page import write_page
from training.processes import agree, any_process, is_primary, on_primary
from training.report import Progress, TensorBoard, plot_rotation, rotation_table
from training.run_folder import Record, RunFolder

# `signal.getsignal` returns None for a handler that is not of Python.
_PYTHONS_OWN = (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler, None)
# Windows has no SIGHUP.
_SIGNALS = [signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


class Interrupted(Exception):  # noqa: N818 (no error)
    """Is raised once a run that was asked to end has saved its state; the message says how to continue."""


class Interruption:
    """Notes SIGTERM, SIGHUP and Ctrl-C in `signal_name` while entered.

    A second Ctrl-C ends a program at once; in a notebook or at a prompt it raises `KeyboardInterrupt`.
    Handlers that another library set stay, such as those of submitit. SIGHUP stays ignored under `nohup`.

    Attributes:
      signal_name: the name of the signal that arrived, `None` if none did.
    """

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        # Python allows signal handlers in the main thread only.
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                before = signal.getsignal(number)
                under_nohup = before == signal.SIG_IGN and number not in (signal.SIGTERM, signal.SIGINT)
                if before in _PYTHONS_OWN and not under_nohup:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal_name = signal.Signals(number).name
        # KeyboardInterrupt waits for the device and for checkpoints, but keeps the variables of a prompt.
        interactive = hasattr(sys, "ps1")
        if signal.SIGINT in self._before:
            before = self._before[signal.SIGINT]
            signal.signal(signal.SIGINT, before if interactive and before is not None else signal.SIG_DFL)
        # Writing to a terminal that is gone would fail, so output to it is discarded.
        for descriptor in (1, 2):
            try:
                os.write(descriptor, b"")
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        what = "interrupts it" if interactive else "aborts at once"
        print(f"\n{self.signal_name}: ends after this epoch; Ctrl-C {what}", file=sys.stderr)


class Session:
    """Keeps the states and records of a run.

    Enter it, call `restore`, then `log_and_checkpoint` after every epoch, then `close`. With several
    processes, the primary one writes files, and all of them save their part of the state.

    Args:
      config: the run.
      folder: its folder.
      source: what its data were read from; a run cannot continue with another source.
      overwrite: whether to replace the run that is there.
      again: the command that continues the run; by default that of `train.py`.
    """

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        source: Source | None = None,
        *,
        overwrite: bool = False,
        again: str | None = None,
    ) -> None:
        self.records: list[Any] = []  # of `Record`; a log may add fields
        self._config, self._folder = config, folder
        self._source, self._overwrite = source, overwrite
        self._again = again or f"python train.py --resume --out {shlex.quote(str(folder.path))}"
        self._saved = 0

    def __enter__(self) -> "Session":
        with ExitStack() as stack:
            on_primary(lambda: self._take(stack))
            agree({"the folder --out, of which this process sees the run": self._folder.holder()})
            self._interruption = stack.enter_context(Interruption())
            self._checkpoints = stack.enter_context(Checkpoints(self._folder.checkpoints))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: Any) -> None:
        if exception[1] is None or isinstance(exception[1], Interrupted) or jax.process_count() == 1:
            self._stack.__exit__(*exception)
        # Otherwise this process ends at once: orbax would wait for the others, which wait for something else.

    def _take(self, stack: ExitStack) -> None:
        stack.enter_context(self._folder.locked())
        # Checked again under the lock: another process may have taken the folder meanwhile.
        self._folder.refuse_unless_free(self._config, resume=True, overwrite=self._overwrite)
        if not self._overwrite:
            self._folder.refuse_other_data(self._source)
        self._folder.prepare(self._config, self._source, overwrite=self._overwrite)

    def restore(self, like: Any) -> Any | None:
        """Returns the newest good state, with the shardings of `like`, or `None`. `records` end at its epoch.

        Damaged states are reported and set aside.

        Raises:
          UsageError: the state is that of another network.
        """
        state = self._restore_newest(like)
        on_primary(self._keep_records)
        self.records = self._folder.read_metrics()
        self._progress = self._stack.enter_context(closing(Progress(self._config.epochs, self._saved)))
        return state

    def _keep_records(self) -> None:
        kept = self._folder.keep_metrics(self._saved)
        if self._folder.with_tensorboard:
            self._tensorboard = self._stack.enter_context(closing(TensorBoard(self._folder.tensorboard)))
            self._tensorboard.add(kept)

    def _restore_newest(self, like: Any) -> Any | None:
        epochs = [record["epoch"] for record in self._folder.read_metrics()]
        recorded = next((n for n, epoch in enumerate(epochs) if epoch != n + 1), len(epochs))
        state, damaged = None, {}
        for epoch in reversed(self._checkpoints.epochs()):
            try:
                if epoch > recorded:
                    raise DamagedError(f"metrics.jsonl lacks epoch {recorded + 1}")
                state = self._checkpoints.restore(epoch, like)
            except OtherStateError as error:
                path = self._checkpoints.path(epoch)
                raise UsageError(f"{path} is the state of another network: {error}") from None
            except DamagedError as error:
                damaged[epoch] = f"checkpoint {self._checkpoints.path(epoch)} is damaged ({error})"
            else:
                self._saved = epoch
                break
        if damaged and state is None:
            raise FileError("; ".join([*damaged.values(), "none is left: start over with --overwrite"]))
        for epoch, message in damaged.items():
            place = self._checkpoints.set_aside(epoch)
            if is_primary():
                print(f"{message}, it is now {place}; going on from epoch {self._saved}", file=sys.stderr)
        return state

    def log_and_checkpoint(self, state: Any, record: Record) -> None:
        """Writes the record of an epoch and, after every tenth of all epochs, the state.

        Raises:
          Interrupted: the run was asked to end; the state is saved.
        """
        if is_primary():
            self._folder.append_metrics(record)
            if self._folder.with_tensorboard:
                self._tensorboard.add([record])
        self.records.append(record)
        self._state = state
        self._progress.show(record)
        epoch, every = record["epoch"], max(1, self._config.epochs // 10)
        if epoch // every > self._saved // every:
            self._save()
        signal_name = self._interruption.signal_name
        if any_process(signal_name is not None) and epoch < self._config.epochs:
            self._save()
            raise Interrupted(
                f"ended by {signal_name or 'another process'} after epoch {epoch} of {self._config.epochs},"
                f" saved after epoch {self._saved}; to go on: {self._again}"
            )

    def _save(self) -> None:
        """Saves the last state if it is finite; otherwise it would displace a good one."""
        epoch = self.records[-1]["epoch"]
        if epoch == self._saved or self.records[-1]["train_loss"] is None:
            return
        if bool(_all_finite(self._state.params)):
            self._checkpoints.save(epoch, self._state)
            self._saved = epoch

    def close(self, reason: str | None) -> None:
        """Saves the last state, draws the curves and prints how far each layer has turned.

        Args:
          reason: why the run ended before its last epoch, `None` if it did not.
        """
        last = self.records[-1]
        self._save()
        self._progress.close()
        if is_primary():
            plot_rotation(self._config.title(), self.records, self._folder.rotation_plot)
            write_page(self._config, self.records, reason, self._folder.report)
        if reason is not None:
            print(f"ended after epoch {last['epoch']}: {reason}")
        if last["epoch"] != self._saved:
            where = f"that after epoch {self._saved}" if self._saved else "none"
            print(f"the last state is not finite and was not saved; the last good one is {where}")
        print(rotation_table(last["rotation"]))
        if self._folder.with_tensorboard:
            install = "" if find_spec("tensorboard") else " (pip install tensorboard)"
            print(f"scalars: tensorboard --logdir {shlex.quote(str(self._folder.tensorboard))}{install}")
        print(f"curves: open {self._folder.report} in a browser")
        print(f"compare {'without' if self._config.layca else 'with'} Layca: {comparison(self._config)}")


@jax.jit
def _all_finite(params: Any) -> jax.Array:
    finite = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(params)]
    return jnp.all(jnp.stack(finite))
