"""Compares optimizers with Layca and alone: draws the dot plot of the README, and prints two tables.

    python -m experiments.readme

does the runs of preset laptop that its logs lack, draws `docs/images/optimizers.svg` and prints the tables.
`python -m experiments tuned --preset small` does the runs on CIFAR-10.

With Layca, rates are the paper's, except that of Adam with Layca on CIFAR-10. It is chosen on held-out
images, as are all rates alone on CIFAR-10 and SGD's on the small VGG and the ResNet (Figure 7). On the MLP,
rates alone are chosen from five by the test accuracy of seeds 10 and 11. No seed that is shown is used for a
choice.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from data.writing import reraise_os_errors
from experiments import fig7, tuned
from experiments.curves import draw_dots, name_rows
from experiments.log import RESULTS, Line, Log
from experiments.presets import NAMES
from experiments.results import README_LOG, Results, spread
from experiments.runs import Training, training
from experiments.work import finish
from training.errors import exit_code

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "optimizers.svg"
SEEDS, CHOICE_SEEDS = (0, 1, 2), (10, 11)
# On the MLP: powers of 3 around the best for the SGD family, half decades for adaptive methods.
GRIDS = {
    "sgd": [3.0**i for i in range(-2, 3)],
    "momentum": [3.0**i for i in range(-4, 1)],
    "sgd_amom": [3.0**i for i in range(-2, 3)],
    "rmsprop": [3e-4, 1e-3, 3e-3, 1e-2, 3e-2],
    "adagrad": [3e-3, 1e-2, 3e-2, 1e-1, 3e-1],
    "adam": [3e-4, 1e-3, 3e-3, 1e-2, 3e-2],
}
# On CIFAR-10: the methods of `tuned`, with Layca and alone.
TUNED = {
    "SGD": ("Layca", "SGD"),
    "momentum": (None, "momentum"),
    "Adam": ("Layca on Adam", "Adam"),
    "AdamW": (None, "AdamW"),
}


class Pairs(Results):
    """The runs on the MLP. The first lines of their log name their run by these fields alone."""

    FIELDS = ("task", "optimizer", "layca", "learning_rate", "seed")

    def _read(self) -> dict[str, Line]:
        return Log(self.preset, README_LOG, self.folder).read(self._config)

    def _config(self, line: Line) -> Mapping[str, object]:
        config = line.get("config", line)
        return training(**{field: config[field] for field in self.FIELDS}).fields()


class Panel(NamedTuple):
    """A network, the logs of its runs, and by optimizer the runs with Layca and alone."""

    title: str
    results: Results
    rows: Mapping[str, Sequence[Sequence[Training]]]


def alone(optimizer: str, rate: float, seeds: Sequence[int]) -> list[Training]:
    return [training(optimizer=optimizer, layca=False, learning_rate=rate, seed=seed) for seed in seeds]


def on_mlp(optimizer: str, pairs: Pairs) -> list[list[Training]]:
    grid = GRIDS[optimizer]
    means = [np.mean(pairs.accuracies(alone(optimizer, rate, CHOICE_SEEDS))) for rate in grid]
    layca = [training(optimizer=optimizer, seed=seed) for seed in SEEDS]
    return [layca, alone(optimizer, grid[int(np.argmax(means))], SEEDS)]


def on_task(task: str, results: Results) -> list[list[Training]]:
    sides = [{}, {"layca": False, "learning_rate": 3.0 ** fig7.choose(task, results)}]
    return [[training(task=task, seed=seed, **side) for seed in SEEDS] for side in sides]


def panels(folder: Path = RESULTS) -> dict[str, Panel]:
    """Returns the panels by task."""
    small, laptop, pairs = Results("small", folder), Results("laptop", folder), Pairs("laptop", folder)
    compared = lambda method: tuned.compared("cifar16-vgg25", method) if method else []
    # A row of the table says how many seeds are logged.
    on_cifar = {
        name: [list(filter(small.has, compared(method))) for method in sides] for name, sides in TUNED.items()
    }
    names = {**NAMES, "momentum": "momentum"}
    mlp = {names[optimizer]: on_mlp(optimizer, pairs) for optimizer in GRIDS}
    vgg, resnet = ({"SGD": on_task(task, laptop)} for task in ("mnist5k-vgg", "mnist5k-resnet"))
    return {
        "cifar16-vgg25": Panel("VGG, 25 layers, CIFAR-10 at 16 × 16", small, on_cifar),
        "mnist5k-mlp": Panel("MLP, 11 layers, MNIST-5k", pairs, mlp),
        "mnist5k-vgg": Panel("VGG, 13 layers, MNIST-5k", laptop, vgg),
        "mnist5k-resnet": Panel("ResNet, 8 layers, MNIST-5k", laptop, resnet),
    }


def table(found: Mapping[str, Panel]) -> str:
    """Returns mean ± standard deviation of test accuracies; in brackets the learning rate and the seeds."""
    lines = ["| network | optimizer | with Layca | alone, best rate |", "|---|---|---|---|"]
    for task, (_, results, rows) in found.items():
        for optimizer, sides in rows.items():
            cells = [
                f"{spread(results.accuracies(runs))} ({runs[0].config.learning_rate:.3g}; {len(runs)} seeds)"
                if runs
                else "not run"
                for runs in sides
            ]
            lines.append(f"| {task} | {optimizer} | {' | '.join(cells)} |")
    return "\n".join(lines)


def margins(folder: Path = RESULTS) -> str:
    """Returns by how many points Layca leads the methods of `tuned`: mean ± standard error over seeds."""
    methods = [name for name in tuned.METHODS if name != "Layca"]
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
    labels = {"with Layca": "C0", "alone, at the best of its rates": "C1"}
    handles = [axes["mnist5k-mlp"].plot([], [], "o", color=color)[0] for color in labels.values()]
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    figure.supxlabel("test accuracy", fontsize="medium")
    return figure


def main() -> None:
    log, pairs = Log("laptop", README_LOG), Pairs("laptop")
    tried = [alone(name, rate, CHOICE_SEEDS) for name, rates in GRIDS.items() for rate in rates]
    finish(log, [run for seeds in tried for run in seeds], pairs)
    pairs = pairs.again()
    finish(log, [run for name in GRIDS for side in on_mlp(name, pairs) for run in side], pairs)
    for task in ("mnist5k-vgg", "mnist5k-resnet"):
        laptop = Results("laptop")
        finish(Log("laptop", "fig7"), [run for seeds in fig7.candidates(task) for run in seeds], laptop)
        laptop = laptop.again()
        finish(Log("laptop", "tasks"), [run for side in on_task(task, laptop) for run in side], laptop)
    found = panels()
    print(table(found), margins(), sep="\n\n")
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "layca"}), reraise_os_errors(PICTURE):
        draw(found).savefig(PICTURE, metadata={"Date": None})
    print(PICTURE)


if __name__ == "__main__":
    sys.exit(exit_code("python -m experiments.readme", main))
