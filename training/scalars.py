"""TensorBoard's view of a run: its records as scalars."""

import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# Not SummaryWriter: it writes from a thread, where an error is lost and the full queue before it then blocks.
from tensorboardX import RecordWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyrefly: ignore[missing-module-attribute]
from tensorboardX.proto.summary_pb2 import Summary  # pyrefly: ignore[missing-module-attribute]

from data.writing import reraise_os_errors


class Scalars:
    """Event files with the records of a run, in a folder that is written anew.

    What it holds follows from the records alone, as the plots do: a run that is resumed adds those that it
    continues from first, so that no epoch is missing and none is there twice.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with reraise_os_errors(folder):
            if folder.exists():
                shutil.rmtree(folder)
            folder.mkdir()
            self._file = RecordWriter(str(folder / f"events.out.tfevents.{int(time.time())}"))
        # With the second event, a TensorBoard that watches the folder forgets what it read there.
        self._write(Event(file_version="brain.Event:2"))
        self._write(Event(session_log=SessionLog(status=SessionLog.START)))

    def add(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Writes epochs of which the last one has just ended; they are on the disk when this returns."""
        # Differences of time are times of training, without the pause before a run was resumed.
        ended = time.time() - sum(record["seconds"] for record in records)
        with reraise_os_errors(self._folder):
            for record in records:
                ended += record["seconds"]
                self._write(_event(record, ended))
            self._file.flush()

    def close(self) -> None:
        with reraise_os_errors(self._folder):
            self._file.close()

    def _write(self, event: Event) -> None:
        self._file.write(event.SerializeToString())


def _event(record: Mapping[str, Any], wall_time: float) -> Event:
    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in _scalars(record)]
    return Event(step=record["epoch"], wall_time=wall_time, summary=Summary(value=values))


def _scalars(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    yield "train_loss", _number(record["train_loss"])
    for name, value in record.items():
        # None: not looked at in this epoch.
        if name.endswith("_accuracy") and value is not None:
            yield name, value
    yield "skipped", sum(record["skipped"].values())
    for layer, distance in record["rotation"].items():
        yield f"rotation/{layer}", _number(distance)


def _number(value: float | None) -> float:
    return math.nan if value is None else value
