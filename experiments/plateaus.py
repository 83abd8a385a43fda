"""Plateaus of the training loss by alpha, of which Figures 5a and 8 show different tasks."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import train
from experiments.claims import Claim, Finding, slope
from experiments.curves import draw_curve, panels, shades
from experiments.presets import Part
from experiments.results import Results
from experiments.runs import Training


def plateau_runs(parts: Sequence[Part], alphas: Sequence[float]) -> list[Training]:
    return [run for part in parts for alpha in drawn(part, alphas) for run in part.runs(alpha=alpha)]


def drawn(part: Part, alphas: Sequence[float]) -> list[float]:
    """Those of `alphas` that Figure 2 has for the task."""
    return [alpha for alpha in alphas if alpha in part.alphas]


def draw_plateaus(parts: Sequence[Part], alphas: Sequence[float], results: Results) -> Figure:
    parts = [part for part in parts if len(part.alphas) > 1]
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


def higher_when_uniform(part: Part, alphas: Sequence[float], results: Results) -> Finding:
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


def plateau_claims(parts: Sequence[Part], alphas: Sequence[float]) -> list[Claim]:
    rows = {
        "Plateaus are higher, the more uniform rotation is": partial(higher_when_uniform, alphas=alphas),
        "A lower learning rate ends the plateau (6.1)": drop_ends_plateau,
    }
    return [
        Claim(f"{text}: {part.task}", "curves only", lambda results, m=measure, p=part: m(p, results=results))
        for text, measure in rows.items()
        for part in parts
        if len(part.alphas) > 1 or measure is drop_ends_plateau
    ]
