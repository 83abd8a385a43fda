"""Shows a run: its progress, a table and a plot of its rotation, scalars for TensorBoard."""

import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboardX import RecordWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyrefly: ignore[missing-module-attribute]
from tensorboardX.proto.summary_pb2 import Summary  # pyrefly: ignore[missing-module-attribute]
from tqdm import tqdm

from data.writing import atomic_write, reraise_os_errors

try:
    from matplotlib.figure import Figure
except ValueError:
    raise SystemExit(f"error: MPLBACKEND={os.environ.get('MPLBACKEND')} is unknown to matplotlib") from None

from layca_optax.plot import draw_layers, scale_of_layers


class Progress:
    """Shows a bar on a terminal, and elsewhere a line after about every tenth of the epochs."""

    def __init__(self, epochs: int, done: int = 0) -> None:
        self._epochs = epochs
        # None: only where standard error is a terminal.
        self._bar = tqdm(total=epochs, initial=done, unit="epoch", dynamic_ncols=True, disable=None)
        self._test_accuracy = "-"

    def show(self, record: Mapping[str, Any]) -> None:
        if record["test_accuracy"] is not None:
            self._test_accuracy = show(record["test_accuracy"], ".3f")
        text = f"loss {show(record['train_loss'], '.2g')} · test {self._test_accuracy}"
        epoch = record["epoch"]
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update()
        rare = epoch == 1 or epoch == self._epochs or epoch % max(1, self._epochs // 10) == 0
        if self._bar.disable and rare:
            print(f"epoch {epoch}/{self._epochs}: {text}", flush=True)

    def close(self) -> None:
        self._bar.close()


def rotation_table(rotation: Mapping[str, float | None]) -> str:
    """Returns a table of the layers in forward order with their cosine distance from initialisation."""
    width = max([len("layer"), *map(len, rotation)])
    rows = [f"{name.ljust(width)}  {show(distance)}" for name, distance in rotation.items()]
    return "\n".join([f"{'layer'.ljust(width)}  cosine distance from initialisation", *rows])


def plot_rotation(title: str, records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws the distances of layers from initialisation as in Figure 3 of the paper, first layer darkest.

    Args:
      title: the title of the plot.
      records: one per epoch; `rotation` has the layers in forward order.
      path: a PNG file to write.
    """
    # Not pyplot, which would choose a backend for the whole process.
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    layers = records[-1]["rotation"]
    curves = {layer: [0.0, *(record["rotation"][layer] for record in records)] for layer in layers}
    draw_layers(axes, [0, *(record["epoch"] for record in records)], curves)
    axes.set(title=title, xlabel="epoch", ylabel="cosine distance from initialisation", ylim=(0, 1))
    scale_of_layers(figure, [axes])
    with atomic_write(path) as part:
        figure.savefig(part, dpi=130, format="png")


def show(number: float | None, form: str = ".4f") -> str:
    """Returns a number of a record as text; `None` stands for one that is not finite."""
    return "not finite" if number is None else format(number, form)


class TensorBoard:
    """Writes the records of a run as event files, into a folder that is emptied first.

    A run that is resumed first adds the records that it continues from, so that every epoch is there once.
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
        """Writes the records of epochs to the disk; the last of them has just ended."""
        # The times differ by how long each epoch took, without the pause before a run was resumed.
        ended = time.time() - sum(record["seconds"] for record in records)
        with reraise_os_errors(self._folder):
            for record in records:
                ended += record["seconds"]
                values = [Summary.Value(tag=tag, simple_value=value) for tag, value in _scalars(record)]
                self._write(Event(step=record["epoch"], wall_time=ended, summary=Summary(value=values)))
            self._file.flush()

    def close(self) -> None:
        with reraise_os_errors(self._folder):
            self._file.close()

    def _write(self, event: Event) -> None:
        self._file.write(event.SerializeToString())


def _scalars(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    number = lambda value: math.nan if value is None else value
    yield "train_loss", number(record["train_loss"])
    for name, value in record.items():
        # None: not measured in this epoch.
        if name.endswith("_accuracy") and value is not None:
            yield name, value
    yield "skipped", sum(record["skipped"].values())
    for layer, distance in record["rotation"].items():
        yield f"rotation/{layer}", number(distance)
