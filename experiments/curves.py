"""Draws curves as the paper does: layer rotation, training loss and accuracy."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from experiments.results import Results
from experiments.runs import Run
from layca_optax.plot import draw_layers, scale_of_layers

# Label, color and marker of runs with Layca and with SGD alone.
STYLES = {True: ("Layca", "C0", "o"), False: ("SGD", "C1", "s")}


def panels(rows: int, columns: int, size: tuple[float, float] = (3.6, 2.9)) -> tuple[Figure, Any]:
    """Returns a figure and its array of axes, each of a `size` in inches."""
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    return figure, axes


def panel(size: tuple[float, float] = (4.5, 3.2)) -> tuple[Figure, Axes]:
    """Returns a figure with one panel, and its axes."""
    figure, ((axis,),) = panels(1, 1, size)
    return figure, axis


def titled_panels(titles: Iterable[str], ylabel: str, **settings: Any) -> tuple[Figure, list[Axes]]:
    """Returns a figure with a row of panels, and their axes; `settings` are those of `Axes.set`."""
    titles = list(titles)
    figure, (axes,) = panels(1, len(titles))
    for axis, title in zip(axes, titles, strict=True):
        axis.set(title=title, **settings)
    axes[0].set_ylabel(ylabel)
    return figure, list(axes)


def draw_rotation(axis: Axes, run: Mapping[str, Any]) -> None:
    """Draws each layer's cosine distance from its initial weights per epoch, the first layer darkest."""
    curves = {layer: _floats([0, *distances]) for layer, distances in run["curves"]["rotation"].items()}
    draw_layers(axis, range(max(map(len, curves.values()))), curves)


def share_height(row: Sequence[Axes]) -> None:
    """Gives panels that are compared one vertical axis, from 0 to just above the highest curve."""
    top = max(axis.get_ylim()[1] for axis in row)
    for axis in row:
        axis.set_ylim(0, top)


def rotation_figure(rows: Sequence[Mapping[str, Run]], results: Results) -> Figure:
    """Draws the rotation of every run in a panel with the run's title."""
    figure, axes = panels(len(rows), len(rows[0]))
    for line, row in zip(axes, rows, strict=True):
        for axis, (title, run) in zip(line, row.items(), strict=True):
            draw_rotation(axis, results.of(run))
            axis.set_title(title)
        share_height(line)
        line[0].set_ylabel("cosine distance")
    for axis in axes[-1]:
        axis.set_xlabel("epoch")
    scale_of_layers(figure, axes.flat)
    return figure


def draw_means(
    axis: Axes, positions: Sequence[float], table: Iterable[Sequence[Run]], results: Results, **style: Any
) -> None:
    """Draws the mean and standard deviation of test accuracy over the seeds at each position."""
    found = [results.accuracies(runs) for runs in table]
    axis.errorbar(positions, np.mean(found, 1), np.std(found, 1), **style)


def draw_curve(axis: Axes, runs: Sequence[Mapping[str, Any]], name: str, **style: Any) -> None:
    """Draws the mean of a curve over seeds, at the epochs at which it was measured."""
    length = min(len(run["curves"][name]) for run in runs)
    values = np.mean([_floats(run["curves"][name][:length]) for run in runs], axis=0)
    epochs = np.flatnonzero(np.isfinite(values))
    axis.plot(epochs + 1, values[epochs], **style)


def draw_dots(axis: Axes, row: float, values: Sequence[float], color: str, label: str | None = None) -> None:
    """Draws each seed's value as a dot and their mean as a bar, at a height of `row`."""
    axis.plot(values, np.full(len(values), row), "o", color=color, alpha=0.5, label=label)
    axis.plot(np.mean(values), row, "|", color="k", ms=16)


def name_rows(axis: Axes, names: Sequence[str]) -> None:
    """Names the rows of a dot plot, the first at the top."""
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)


def name_data(figure: Figure, data: str) -> None:
    """Names below the panels the data that a figure is drawn from, if they are not embedded."""
    if data:
        line = 0.18 / figure.get_figheight()  # inches
        figure.set_layout_engine("constrained", rect=(0, line, 1, 1 - line))
        figure.text(0.99, 0.005, data, ha="right", va="bottom", fontsize="x-small")


def shades(number: int) -> Any:
    return ScalarMappable(Normalize(0, max(1, number - 1)), "viridis").to_rgba(np.arange(number))


def final_rotation(run: Mapping[str, Any]) -> np.ndarray:
    """Returns every layer's final cosine distance from its initial weights; NaN if the run diverged."""
    return _floats([distances[-1] for distances in run["curves"]["rotation"].values()])


def mean_rotation(run: Mapping[str, Any]) -> float:
    return float(final_rotation(run).mean())


def unevenness(run: Mapping[str, Any]) -> float:
    """Returns the standard deviation of `final_rotation` over layers, relative to its mean."""
    rotation = final_rotation(run)
    return float(rotation.std() / rotation.mean())


def compare_rotation(
    sides: Sequence[Sequence[Run]], results: Results
) -> tuple[list[float], dict[str, np.ndarray]]:
    """Compares how far and how evenly two sides turn their layers.

    Returns:
      The mean distance of both, then their unevenness; and the margins by which the first side turns its
      layers further, and more evenly.
    """
    far, uneven = (results.paired(sides, measure) for measure in (mean_rotation, unevenness))
    margins = {"further": far[0] - far[1], "more even": uneven[1] - uneven[0]}
    return [*far.mean(axis=1), *uneven.mean(axis=1)], margins


def _floats(values: Sequence[float | None]) -> np.ndarray:
    return np.array(values, float)
