"""A run in its folder: where it begins, what is kept of every epoch, what is left at the end."""

from contextlib import ExitStack
from typing import Any

import jax

from training.checkpoints import Checkpoints
from training.config import Config
from training.report import Progress, plot_rotation, rotation_table
from training.run_folder import RunFolder


class Session:
    """Keeps a run's states and records.

    Use as a context; `restore` comes first, then `keep` after every epoch, then `report`.
    """

    def __init__(self, config: Config, folder: RunFolder, *, overwrite: bool = False) -> None:
        self.records: list[dict[str, Any]] = []
        self._config = config
        self._folder = folder
        self._overwrite = overwrite
        self._stack = ExitStack()

    def __enter__(self) -> "Session":
        self._folder.prepare(self._config, overwrite=self._overwrite)
        self._checkpoints = self._stack.enter_context(Checkpoints(self._folder.checkpoints))
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stack.__exit__(*exception)

    def restore(self, like: Any) -> Any | None:
        """The newest state, placed as `like` says, or `None` if there is none; `records` go as far as it."""
        done = self._checkpoints.latest_epoch() or 0
        self.records = self._folder.keep_metrics(done)
        self._progress = self._stack.enter_context(Progress(self._config.epochs, done))
        return self._checkpoints.restore(done, like) if done else None

    def keep(self, state: Any, record: dict[str, Any]) -> None:
        """Writes the record of an epoch and, every tenth of all epochs, the state after it."""
        self._folder.append_metrics(record)
        self.records.append(record)
        if record["epoch"] % max(1, self._config.epochs // 10) == 0:
            self._checkpoints.save(record["epoch"], state)
        self._state = state
        self._progress.show(record)

    def finish(self, reason: str | None) -> None:
        """Saves the last state, draws the rotation curves and prints how far every layer turned."""
        last = self.records[-1]
        if last["epoch"] != self._checkpoints.latest_epoch():
            self._checkpoints.save(last["epoch"], jax.block_until_ready(self._state))
        self._progress.close()
        plot_rotation(self._config.title(), self.records, self._folder.rotation_plot)
        if reason is not None:
            print(f"ended after epoch {last['epoch']}: {reason}")
        print(rotation_table(last["rotation"]))
        print(f"run in {self._folder.path}")
