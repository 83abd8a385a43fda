"""Figures 5a and 8: the closer alpha is to 0, the higher the plateau of the training loss with Layca.

Figure 5a shows the last task of Section 5, which in the paper is tiny-cnn, and Figure 8 the others.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import train
from experiments.claims import Claim, Finding, by_task, slope
from experiments.curves import draw_curve, panels, shades
from experiments.experiment import Experiment
from experiments.presets import SECTION5, Part
from experiments.results import Results
from experiments.runs import Training


def drawn(part: Part, alphas: Sequence[float]) -> list[float]:
    """Those of `alphas` that Figure 2 has for the task."""
    return [alpha for alpha in alphas if alpha in part.alphas]


def runs(tasks: slice, alphas: Sequence[float], preset: str) -> list[Training]:
    parts = SECTION5[preset][tasks]
    return [run for part in parts for alpha in drawn(part, alphas) for run in part.runs(alpha=alpha)]


def with_alphas(tasks: slice, preset: str) -> list[Part]:
    """The tasks that have other alphas than 0."""
    return [part for part in SECTION5[preset][tasks] if len(part.alphas) > 1]


def draw(tasks: slice, alphas: Sequence[float], preset: str, results: Results) -> Figure:
    parts = with_alphas(tasks, preset)
    figure, axes = panels(1, len(parts))
    for axis, part in zip(axes[0], parts, strict=True):
        for alpha, shade in zip(alphas, shades(len(alphas)), strict=True):
            if alpha not in part.alphas:
                continue
            found = [results.of(run) for run in part.runs(alpha=alpha)]
            draw_curve(axis, found, "train_loss", color=shade, label=f"α = {alpha:g}")
        axis.set(title=part.task, xlabel="epoch", yscale="log")
    axes[0, 0].set_ylabel("training loss")
    axes[0, 0].legend(fontsize="small")
    return figure


def first_drop(part: Part) -> int:
    """The epoch after which the learning rate first drops."""
    task = train.TASKS[part.task]
    return task.schedule_with(True, task.epochs).drops[0]


def height(part: Part, line: Mapping[str, Any]) -> float | None:
    """The logarithm of the training loss in the three epochs before the learning rate first drops."""
    losses = np.array(line["curves"]["train_loss"][: first_drop(part)], float)
    return float(np.log(losses[-3:].mean())) if len(losses) == first_drop(part) else None


def higher_when_uniform(alphas: Sequence[float], part: Part, results: Results) -> Finding:
    """The smallest alpha against the largest, and the trend over all; of logarithms of the loss."""
    alphas = drawn(part, alphas)
    found = results.paired([part.runs(alpha=alpha) for alpha in alphas], partial(height, part))
    listed = ", ".join(f"{loss:.2g}" for loss in np.exp(found.mean(axis=1)))
    ours = f"loss {listed} at α = {', '.join(f'{alpha:g}' for alpha in alphas)}; of logarithms"
    return Finding(ours, {"ends": found[0] - found[-1], "fall per unit of α": -slope(found, alphas)})


def drop_ends_plateau(part: Part, results: Results) -> Finding:
    """At alpha = 0 the loss falls faster in the three epochs after the drop than in the three before."""
    drop = first_drop(part)

    def faster(line: Mapping[str, Any]) -> float | None:
        losses = np.log(np.array(line["curves"]["train_loss"], float))
        if len(losses) < drop + 3:
            return None
        return float((losses[drop - 1] - losses[drop + 2]) - (losses[drop - 4] - losses[drop - 1]))

    (found,) = results.paired([part.runs()], faster)
    return Finding("fall of the logarithm of the loss, after less before", {"difference": found})


def claims(tasks: slice, alphas: Sequence[float], preset: str) -> list[Claim]:
    higher, ends = (
        "Plateaus are higher, the more uniform rotation is",
        "A lower learning rate ends the plateau (6.1)",
    )
    return [
        *by_task(with_alphas(tasks, preset), higher, "curves only", partial(higher_when_uniform, alphas)),
        *by_task(SECTION5[preset][tasks], ends, "curves only", drop_ends_plateau),
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
