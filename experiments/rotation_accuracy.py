"""Do networks generalise better, the further all layers turned? Every logged run of a task is a point.

No figure in the paper; its authors' next one says that networks generalise best whose layers all end near a
cosine distance of 1. Needs no runs: it reads those of the other experiments that reached 98 % on the training
images, whatever their optimizer, learning rate, alpha and length. Colours tell the learning rate.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from scipy.stats import rankdata

from experiments.claims import Finding, by_task
from experiments.curves import final_rotation, panels
from experiments.experiment import Experiment
from experiments.fig2 import STYLES, trained
from experiments.presets import SECTION5, SECTION6, Part
from experiments.results import LostRunsError, MissingRunError, Results

# What a point's position is read off: the final distances of all layers.
SUMMARIES: Mapping[str, Callable[[np.ndarray], float]] = {"mean": np.mean, "smallest": np.min}
COLORS = ScalarMappable(Normalize(-7, 2), "viridis")
# A seed with fewer runs has no correlation worth the name.
ENOUGH_RUNS = 8


def parts(preset: str) -> list[Part]:
    """One per task."""
    return list({part.task: part for part in (*SECTION5[preset], *SECTION6[preset])}.values())


def lines_of(task: str, results: Results) -> list[Mapping[str, Any]]:
    """The runs of a task that were trained."""
    logged = [line for line in results.values() if line["config"].get("task") == task]
    if not logged:
        raise MissingRunError(f"no log has a run of {task}")
    return [line for line in logged if trained(line) and np.isfinite(final_rotation(line)).all()]


def draw(preset: str, results: Results) -> Figure:
    names = [part.task for part in parts(preset)]
    figure, axes = panels(len(SUMMARIES), len(names))
    for column, task in zip(axes.T, names, strict=True):
        lines = lines_of(task, results)
        powers = np.log([line["config"]["learning_rate"] for line in lines]) / np.log(3)
        layca = np.array([line["config"]["layca"] for line in lines])
        for axis, (name, summary) in zip(column, SUMMARIES.items(), strict=True):
            distances = np.array([summary(final_rotation(line)) for line in lines])
            accuracies = np.array([line["test_accuracy"] for line in lines])
            for side, (label, _, marker) in STYLES.items():
                chosen = layca == side
                label = label if side else "without Layca"
                colors = COLORS.to_rgba(powers[chosen])
                axis.scatter(
                    distances[chosen], accuracies[chosen], c=colors, marker=marker, s=14, label=label
                )
            axis.set(title=task, xlabel=f"cosine distance, {name} layer")
    for row in axes:
        row[0].set_ylabel("test accuracy")
    axes[0, 0].legend()
    figure.colorbar(COLORS, ax=axes, label="learning rate, power of 3")
    if data := results.data(results):
        figure.text(0.99, 0.005, data, ha="right", va="bottom", fontsize="x-small")
    return figure


def correlations(lines: Sequence[Mapping[str, Any]], summary: Callable[[np.ndarray], float]) -> np.ndarray:
    """By seed, Spearman's rank correlation of distance and test accuracy over the runs with that seed."""
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
        raise LostRunsError
    return np.array(found)


def predicts(part: Part, results: Results) -> Finding:
    lines = lines_of(part.task, results)
    found = {name: correlations(lines, summary) for name, summary in SUMMARIES.items()}
    return Finding(f"rank correlation over {len(lines)} runs, by seed", found)


ROTATION_ACCURACY = Experiment(
    "rotation-accuracy",
    log="fig2",
    draw=draw,
    claims=lambda preset: by_task(
        parts(preset),
        "The further layers turned (mean, smallest), the better the test accuracy",
        "the successor's claim",
        predicts,
    ),
)
