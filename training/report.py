"""What a person sees of a run: progress, the table of rotations, the plot of rotation curves."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from tqdm import tqdm

from data.writing import atomic_write


class Progress:
    """A bar on a terminal; elsewhere a line for about every tenth of the epochs."""

    def __init__(self, epochs: int, done: int = 0) -> None:
        self._epochs = epochs
        self._bar = (
            tqdm(total=epochs, initial=done, unit="epoch", dynamic_ncols=True)
            if sys.stderr.isatty()
            else None
        )
        self._test_accuracy = "-"

    def show(self, record: Mapping[str, Any]) -> None:
        if record["test_accuracy"] is not None:
            self._test_accuracy = show(record["test_accuracy"])
        text = (
            f"train loss {show(record['train_loss'], '.2e')},"
            f" train accuracy {show(record['train_accuracy'])}, test accuracy {self._test_accuracy}"
        )
        epoch = record["epoch"]
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update()
        elif epoch == 1 or epoch == self._epochs or epoch % max(1, self._epochs // 10) == 0:
            print(f"epoch {epoch}/{self._epochs}: {text}", flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def rotation_table(rotation: Mapping[str, float | None]) -> str:
    """Layers in forward order with their cosine distance from initialisation."""
    width = max([len("layer"), *map(len, rotation)])
    rows = [f"{name.ljust(width)}  {show(distance)}" for name, distance in rotation.items()]
    return "\n".join([f"{'layer'.ljust(width)}  cosine distance from initialisation", *rows])


def layer_colors(count: int) -> list[str]:
    """Viridis from the first layer, darkest, to the last."""
    return [to_hex(color) for color in colormaps["viridis"](np.linspace(0, 1, count))]


def plot_rotation(title: str, records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws a run's layer-wise angle deviation curves as in the paper's Figure 3, first layer darkest.

    Args:
      title: stands above the plot.
      records: one an epoch; each one's `rotation` lists layers in forward order.
      path: a PNG file to write.
    """
    # Not pyplot, which would choose a backend for the whole process.
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axis = figure.subplots()
    layers = list(records[-1]["rotation"])
    epochs = [0, *(record["epoch"] for record in records)]
    for layer, color in zip(layers, layer_colors(len(layers)), strict=True):
        distances = [0.0, *(record["rotation"][layer] for record in records)]
        axis.plot(epochs, np.array(distances, float), color=color, linewidth=1.5)
    axis.set(title=title, xlabel="epoch", ylabel="cosine distance from initialisation", ylim=(0, 1))
    axis.margins(x=0)
    axis.grid(alpha=0.3)
    bar = figure.colorbar(ScalarMappable(cmap="viridis"), ax=axis, label="layer", ticks=[0, 1])
    bar.ax.set_yticklabels(["first", "last"])
    with atomic_write(path) as part:
        figure.savefig(part, dpi=130, format="png")


def show(number: float | None, form: str = ".4f") -> str:
    """A number of a record, which has `None` for one that is not finite."""
    return "not finite" if number is None else format(number, form)
