"""Figures 5a and 8: the closer alpha is to 0, the higher the plateau of the training loss with Layca.

Figure 5a shows the last task of Section 5, which is tiny-cnn in the paper; Figure 8 shows the others.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import train
from experiments.claims import Claim, Finding, by_task, slope
from experiments.curves import draw_curve, shades, titled_panels
from experiments.experiment import Experiment
from experiments.fig2 import with_alphas
from experiments.presets import SECTION5, Setup
from experiments.results import Results
from experiments.runs import Training


def drawn(setup: Setup, alphas: Sequence[float]) -> list[float]:
    """Returns those of `alphas` that Figure 2 has for the task."""
    return [alpha for alpha in alphas if alpha in setup.alphas]


def runs(tasks: slice, alphas: Sequence[float], preset: str) -> list[Training]:
    setups = SECTION5[preset][tasks]
    return [run for setup in setups for alpha in drawn(setup, alphas) for run in setup.runs(alpha=alpha)]


def shown(tasks: slice, preset: str) -> list[Setup]:
    """Returns the figure's setups that have other alphas than 0."""
    return [setup for setup in SECTION5[preset][tasks] if setup in with_alphas(preset)]


def draw(tasks: slice, alphas: Sequence[float], preset: str, results: Results) -> Figure:
    setups = shown(tasks, preset)
    names = [setup.task for setup in setups]
    figure, axes = titled_panels(names, "training loss", xlabel="epoch", yscale="log")
    colors = dict(zip(alphas, shades(len(alphas)), strict=True))
    for axis, setup in zip(axes, setups, strict=True):
        for alpha in drawn(setup, alphas):
            found = [results.of(run) for run in setup.runs(alpha=alpha)]
            draw_curve(axis, found, "train_loss", color=colors[alpha], label=f"α = {alpha:g}")
    axes[0].legend(fontsize="small")
    return figure


def first_drop(setup: Setup) -> int:
    """Returns the epoch after which the learning rate first drops."""
    task = train.TASKS[setup.task]
    return task.schedule_with(True, task.epochs).drops[0]


def height(setup: Setup, line: Mapping[str, Any]) -> float | None:
    """Returns the logarithm of the training loss in the three epochs before the learning rate first drops."""
    losses = np.array(line["curves"]["train_loss"][: first_drop(setup)], float)
    return float(np.log(losses[-3:].mean())) if len(losses) == first_drop(setup) else None


def higher_when_uniform(alphas: Sequence[float], setup: Setup, results: Results) -> Finding:
    """Compares the smallest alpha with the largest, and fits a line over all, to logarithms of the loss."""
    alphas = drawn(setup, alphas)
    found = results.paired([setup.runs(alpha=alpha) for alpha in alphas], partial(height, setup))
    listed = ", ".join(f"{loss:.2g}" for loss in np.exp(found.mean(axis=1)))
    ours = f"loss {listed} at α = {', '.join(f'{alpha:g}' for alpha in alphas)}; of logarithms"
    return Finding(ours, {"ends": found[0] - found[-1], "fall per unit of α": -slope(found, alphas)})


def drop_ends_plateau(setup: Setup, results: Results) -> Finding:
    """Compares how fast the loss falls at alpha = 0 in the three epochs after the drop and before it."""
    drop = first_drop(setup)

    def faster(line: Mapping[str, Any]) -> float | None:
        losses = np.log(np.array(line["curves"]["train_loss"], float))
        if len(losses) < drop + 3:
            return None
        return float((losses[drop - 1] - losses[drop + 2]) - (losses[drop - 4] - losses[drop - 1]))

    (found,) = results.paired([setup.runs()], faster)
    return Finding("fall of the logarithm of the loss, after less before", {"difference": found})


def claims(tasks: slice, alphas: Sequence[float], preset: str) -> list[Claim]:
    higher = "Plateaus are higher, the more uniform rotation is"
    ends = "A lower learning rate ends the plateau (6.1)"
    return [
        *by_task(shown(tasks, preset), (higher, "curves only", partial(higher_when_uniform, alphas))),
        *by_task(SECTION5[preset][tasks], (ends, "curves only", drop_ends_plateau)),
    ]


FIG5A, FIG8 = (
    Experiment(
        name,
        log="fig2",
        runs=partial(runs, tasks, alphas),
        draw=partial(draw, tasks, alphas),
        claims=partial(claims, tasks, alphas),
    )
    for name, tasks, alphas in (
        ("fig5a", slice(-1, None), (0.0, 0.1, 0.2, 0.3, 0.4, 0.6)),
        ("fig8", slice(-1), (0.0, 0.1, 0.2, 0.3, 0.4)),
    )
)
