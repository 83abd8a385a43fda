"""Compares optimizers with Layca and alone: draws the dot plot of the README, and prints two tables.

    python -m experiments.readme

reads the logs of `tuned` and `fig2` and draws `docs/images/optimizers.svg`. Rates were chosen on held-out
images, by seeds that are not shown; on the networks of Figure 2 Layca has the paper's 3^-3.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from data.writing import reraise_os_errors
from experiments import tuned
from experiments.curves import draw_dots, name_rows
from experiments.log import RESULTS
from experiments.presets import SECTION5
from experiments.results import Results, spread
from experiments.runs import Training
from training.errors import exit_code

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "optimizers.svg"
TITLES = {
    "cifar16-vgg25": "VGG, 25 layers, CIFAR-10 at 16 × 16",
    "mnist5k-mlp": "MLP, 11 layers, MNIST-5k",
    "cifar16-vgg10": "VGG, 10 layers, CIFAR-10 at 16 × 16",
    "cifar16-resnet20": "ResNet-20, CIFAR-10 at 16 × 16",
}


class Panel(NamedTuple):
    """A network, the logs of its runs, and by optimizer the runs with Layca and alone."""

    title: str
    results: Results
    rows: Mapping[str, tuple[Sequence[Training], Sequence[Training]]]


def panels(folder: Path = RESULTS) -> dict[str, Panel]:
    """Returns the panels by task."""
    found = {}
    for preset, compared in tuned.TASKS.items():
        results = Results(preset, folder)
        rows = {
            name: (tuned.compared(compared, layca) if layca else [], tuned.compared(compared, name))
            for name, layca in tuned.pairs(compared).items()
        }
        found[compared] = Panel(TITLES[compared], results, rows)
        for setup in SECTION5[preset]:
            if setup.task in TITLES.keys() - tuned.TASKS.values():
                rows = {"SGD": (setup.runs(), setup.runs(layca=False))}
                found[setup.task] = Panel(TITLES[setup.task], results, rows)
    return {task: found[task] for task in TITLES}


def table(found: Mapping[str, Panel]) -> str:
    """Returns mean ± standard deviation of test accuracies over seeds, and the learning rate."""
    lines = ["| network | optimizer | with Layca | alone |", "|---|---|---|---|"]
    for task, (_, results, rows) in found.items():
        for optimizer, sides in rows.items():
            cells = [
                f"{spread(results.accuracies(runs))} at {runs[0].config.learning_rate:.3g}"
                if runs
                else "not run"
                for runs in sides
            ]
            lines.append(f"| {task} | {optimizer} | {' | '.join(cells)} |")
    return "\n".join(lines)


def margins(folder: Path = RESULTS) -> str:
    """Returns by how many points Layca on SGD leads the methods that both networks of `tuned` have.

    Each is a mean ± standard error over seeds.
    """
    methods = [name for name in tuned.METHODS if all(name in tuned.CHOSEN[task] for task in tuned.CHOSEN)][1:]
    lines = [f"| network | {' | '.join(methods)} |", "|---" * (1 + len(methods)) + "|"]
    for preset, task in tuned.TASKS.items():
        cells, results = [task], Results(preset, folder)
        for method in methods:
            layca, other = results.paired([tuned.compared(task, name) for name in ("Layca", method)])
            points = 100 * (layca - other)
            cells.append(f"{points.mean():+.1f} ± {points.std(ddof=1) / np.sqrt(len(points)):.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(found: Mapping[str, Panel]) -> Figure:
    """Draws a panel per network and a row per optimizer: each seed a dot, the mean a bar."""
    figure = Figure(figsize=(8.5, 5), layout="constrained")
    first, second, third, fourth = found
    axes = figure.subplot_mosaic([[first, second], [third, fourth]], height_ratios=[3, 1])
    for task, (title, results, rows) in found.items():
        for row, (layca, other) in enumerate(rows.values()):
            for shift, runs, color in ((-0.15, layca, "C0"), (0.15, other, "C1")):
                if runs:
                    draw_dots(axes[task], row + shift, results.accuracies(runs), color)
        name_rows(axes[task], list(rows))
        axes[task].set_title(title, fontsize="medium")
        axes[task].locator_params(axis="x", nbins=6)
        axes[task].grid(axis="x", alpha=0.3)
    labels = {"with Layca": "C0", "alone": "C1"}
    handles = [axes["mnist5k-mlp"].plot([], [], "o", color=color)[0] for color in labels.values()]
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    figure.supxlabel("test accuracy", fontsize="medium")
    return figure


def main() -> None:
    found = panels()
    print(table(found), margins(), sep="\n\n")
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "layca"}), reraise_os_errors(PICTURE):
        draw(found).savefig(PICTURE, metadata={"Date": None})
    print(PICTURE)


if __name__ == "__main__":
    sys.exit(exit_code("python -m experiments.readme", main))
