"""Curves as the paper draws them: layer-wise angle deviation, training loss, accuracy."""

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


def panels(rows: int, columns: int, size: tuple[float, float] = (3.6, 2.9)) -> tuple[Figure, Any]:
    """A figure and its axes, an array of `rows` times `columns`; `size` is that of a panel, in inches."""
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    return figure, axes


def draw_rotation(axis: Axes, run: Mapping[str, Any]) -> None:
    """Each layer's cosine distance from its initialisation over epochs; the first layer is the darkest."""
    curves = {layer: _floats([0, *distances]) for layer, distances in run["curves"]["rotation"].items()}
    draw_layers(axis, range(max(map(len, curves.values()))), curves)


def share_height(row: Sequence[Axes]) -> None:
    """Gives panels that are compared one vertical axis, from 0 to just above the highest curve."""
    top = max(axis.get_ylim()[1] for axis in row)
    for axis in row:
        axis.set_ylim(0, top)


def rotation_panels(rows: Sequence[Mapping[str, Run]], results: Results) -> tuple[Figure, Any]:
    """A figure with the rotation of every run, below its title, and its axes."""
    figure, axes = panels(len(rows), len(rows[0]))
    for line, row in zip(axes, rows, strict=True):
        for axis, (title, run) in zip(line, row.items(), strict=True):
            draw_rotation(axis, results.of(run))
            axis.set_title(title)
        share_height(line)
        line[0].set_ylabel("cosine distance")
    scale_of_layers(figure, axes.flat)
    return figure, axes


def draw_means(
    axis: Axes, positions: Sequence[float], table: Iterable[Sequence[Run]], results: Results, **style: Any
) -> None:
    """Mean and standard deviation over seeds of the test accuracy, by position the runs of all seeds."""
    found = [results.accuracies(runs) for runs in table]
    axis.errorbar(positions, np.mean(found, 1), np.std(found, 1), **style)


def draw_curve(axis: Axes, runs: Sequence[Mapping[str, Any]], name: str, **style: Any) -> None:
    """The mean of a curve over seeds, at the epochs that it has values for."""
    length = min(len(run["curves"][name]) for run in runs)
    values = np.mean([_floats(run["curves"][name][:length]) for run in runs], axis=0)
    epochs = np.flatnonzero(np.isfinite(values))
    axis.plot(epochs + 1, values[epochs], **style)


def shades(number: int) -> Any:
    return ScalarMappable(Normalize(0, max(1, number - 1)), "viridis").to_rgba(np.arange(number))


def final_rotation(run: Mapping[str, Any]) -> np.ndarray:
    """Every layer's cosine distance from initialisation at the end; NaN of a run that was lost."""
    return _floats([distances[-1] for distances in run["curves"]["rotation"].values()])


def mean_rotation(run: Mapping[str, Any]) -> float:
    return float(final_rotation(run).mean())


def unevenness(run: Mapping[str, Any]) -> float:
    """Standard deviation of `final_rotation` over layers by its mean; 0 if layers rotate together."""
    rotation = final_rotation(run)
    return float(rotation.std() / rotation.mean())


def turned(sides: Sequence[Sequence[Run]], results: Results) -> tuple[list[float], dict[str, np.ndarray]]:
    """How far two sides turned their layers, and how evenly.

    Returns:
      The mean distance of both, then their unevenness; and the parts of the claim that the first one turns
      its layers further, and more together.
    """
    far, uneven = (results.paired(sides, measure) for measure in (mean_rotation, unevenness))
    parts = {"further": far[0] - far[1], "more even": uneven[1] - uneven[0]}
    return [*far.mean(axis=1), *uneven.mean(axis=1)], parts


def _floats(values: Sequence[float | None]) -> np.ndarray:
    return np.array(values, float)
