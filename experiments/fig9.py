"""Figure 9: training curves: with Layca, adaptive methods (solid) train like the others (dashed)."""

from functools import partial

import numpy as np
from matplotlib.figure import Figure

from experiments.claims import Claim, Finding
from experiments.methods import SIDES, draw_methods, method_runs
from experiments.presets import OPTIMIZERS, SECTION6, Part
from experiments.results import Results
from experiments.runs import Training

LOG = "fig4"


def runs(preset: str) -> list[Training]:
    return method_runs(preset)


def draw(preset: str, results: Results) -> Figure:
    return draw_methods(preset, results, "train_accuracy", "training accuracy")


def layca_trains_alike(part: Part, results: Results) -> Finding:
    gaps = {}
    for layca in SIDES:
        curves = [
            np.mean(
                [results.of(run)["curves"]["train_accuracy"] for run in part.runs(optimizer=o, layca=layca)],
                0,
            )
            for o in OPTIMIZERS
        ]
        gaps[layca] = float(np.mean(np.ptp(curves, axis=0)))
    ours = f"gap {100 * gaps[False]:.1f} alone, {100 * gaps[True]:.1f} with Layca (points, mean over epochs)"
    return ours, [gaps[True] < gaps[False], gaps[True] < gaps[False] / 3]


def claims(preset: str) -> list[Claim]:
    return [
        Claim(
            f"With Layca the five optimizers train alike: {part.task}",
            "curves only",
            partial(layca_trains_alike, part),
        )
        for part in SECTION6[preset]
    ]
