"""Checkpoints of the training state, kept by orbax."""

from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp


class Checkpoints:
    """The last three states of a run, by epoch; written in the background, whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._manager = ocp.CheckpointManager(
            folder.absolute(), options=ocp.CheckpointManagerOptions(max_to_keep=3, create=True)
        )

    def latest_epoch(self) -> int | None:
        return self._manager.latest_step()

    def save(self, epoch: int, state: Any) -> None:
        self._manager.save(epoch, args=ocp.args.StandardSave(state))

    def restore(self, epoch: int, like: Any) -> Any:
        """The state after `epoch`, with the structure, shapes, dtypes and shardings of `like`."""
        return self._manager.restore(epoch, args=ocp.args.StandardRestore(like))

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self._manager.wait_until_finished()
        self._manager.close()
