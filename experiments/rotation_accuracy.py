"""Plots test accuracy against how far layers turned; every logged run of a task is a point.

The paper has no figure of this. Its authors' next paper says that networks generalise best if all layers end
near a cosine distance of 1. This needs no runs: it reads those of the other experiments that reached 98 %
training accuracy, whatever their optimizer, learning rate, alpha and length. Colors show the learning rate.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from scipy.stats import rankdata

from experiments.claims import Claim, Finding, by_task
from experiments.curves import STYLES, final_rotation, name_data, panels
from experiments.experiment import Experiment
from experiments.fig2 import trained
from experiments.presets import SECTION5, SECTION6, Setup
from experiments.results import MissingRunError, NoFiniteSeedError, Results

# How the final distances of all layers become one number.
SUMMARIES: Mapping[str, Callable[[np.ndarray], float]] = {"mean": np.mean, "smallest": np.min}
COLORS = ScalarMappable(Normalize(-7, 2), "viridis")
# A seed with fewer runs is left out of the correlation.
ENOUGH_RUNS = 8


def setups(preset: str) -> list[Setup]:
    """Returns one setup per task."""
    return list({setup.task: setup for setup in (*SECTION5[preset], *SECTION6[preset])}.values())


def lines_of(task: str, results: Results) -> list[Mapping[str, Any]]:
    """Returns the lines of a task's runs that reached 98 % training accuracy."""
    logged = [line for line in results.values() if line["config"].get("task") == task]
    if not logged:
        raise MissingRunError(f"no log has a run of {task}")
    return [line for line in logged if trained(line) and np.isfinite(final_rotation(line)).all()]


def draw(preset: str, results: Results) -> Figure:
    """Draws a column per task, unless no run of it reached 98 % training accuracy."""
    found = {setup.task: lines_of(setup.task, results) for setup in setups(preset)}
    shown = [task for task, lines in found.items() if lines] or list(found)
    figure, axes = panels(len(SUMMARIES), len(shown))
    for column, task in zip(axes.T, shown, strict=True):
        lines = found[task]
        for axis, (name, summary) in zip(column, SUMMARIES.items(), strict=True):
            for layca, (label, _, marker) in STYLES.items():
                side = [line for line in lines if line["config"]["layca"] == layca]
                axis.scatter(
                    [summary(final_rotation(line)) for line in side],
                    [line["test_accuracy"] for line in side],
                    c=COLORS.to_rgba(np.log([line["config"]["learning_rate"] for line in side]) / np.log(3)),
                    marker=marker,
                    s=14,
                    label=label if layca else "without Layca",
                )
            axis.set(title=task, xlabel=f"cosine distance, {name} layer")
            if lines:
                axis.set_xscale("log")  # many runs end near 0 and some near 1
                axis.xaxis.set_minor_formatter(NullFormatter())  # its labels overlap
    for row in axes:
        row[0].set_ylabel("test accuracy")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    figure.colorbar(COLORS, ax=axes, label="learning rate, power of 3")
    name_data(figure, results.data(results))
    return figure


def correlations(lines: Sequence[Mapping[str, Any]], summary: Callable[[np.ndarray], float]) -> np.ndarray:
    """Returns, per seed, Spearman's rank correlation of distance and test accuracy over its runs."""
    by_seed: dict[int, list[tuple[float, float]]] = {}
    for line in lines:
        point = float(summary(final_rotation(line))), line["test_accuracy"]
        by_seed.setdefault(line["config"]["seed"], []).append(point)
    found = [
        np.corrcoef(rankdata(np.array(points), axis=0).T)[0, 1]
        for _, points in sorted(by_seed.items())
        if len(points) >= ENOUGH_RUNS and np.ptp(points, axis=0).all()
    ]
    if not found:
        raise NoFiniteSeedError
    return np.array(found)


def predicts(setup: Setup, results: Results) -> Finding:
    lines = lines_of(setup.task, results)
    found = {name: correlations(lines, summary) for name, summary in SUMMARIES.items()}
    return Finding(f"rank correlation over {len(lines)} runs, by seed", found)


def claims(preset: str) -> list[Claim]:
    text = "The further layers turned (mean, smallest), the better the test accuracy"
    return by_task(setups(preset), (text, "the successor's claim", predicts))


ROTATION_ACCURACY = Experiment("rotation-accuracy", log="fig2", draw=draw, claims=claims)
