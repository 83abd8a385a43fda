"""Plateaus of the training loss by alpha, of which Figures 5a and 8 show different tasks."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

import train
from experiments.claims import Finding
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


def plateau(part: Part, alpha: float, results: Results) -> float:
    """The training loss in the three epochs before the learning rate first drops, averaged over seeds."""
    task = train.TASKS[part.task]
    drop = task.schedule_with(True, part.epochs or task.epochs).drops[0]
    losses = [results.of(run)["curves"]["train_loss"][:drop][-3:] for run in part.runs(alpha=alpha)]
    return float(np.mean(losses))


def higher_when_uniform(part: Part, alphas: Sequence[float], results: Results) -> Finding:
    alphas = drawn(part, alphas)
    heights = [plateau(part, alpha, results) for alpha in alphas]
    listed = ", ".join(f"{height:.2g}" for height in heights)
    ours = f"loss {listed} at α = {', '.join(f'{alpha:g}' for alpha in alphas)}"
    return ours, [heights[-1] < heights[0], bool(np.all(np.diff(heights) < 0))]
