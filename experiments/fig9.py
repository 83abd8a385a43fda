"""Figure 9: training curves: with Layca, adaptive methods (solid) train like the others (dashed)."""

from functools import partial

import numpy as np
from matplotlib.figure import Figure

from experiments.claims import Claim, Finding
from experiments.methods import SIDES, draw_methods, method_runs
from experiments.presets import OPTIMIZERS, SECTION6, Part
from experiments.results import Results, spread, without_lost
from experiments.runs import Training

LOG = "fig4"


def runs(preset: str) -> list[Training]:
    return method_runs(preset)


def draw(preset: str, results: Results) -> Figure:
    return draw_methods(preset, results, "train_accuracy", "training accuracy")


def layca_trains_alike(part: Part, results: Results) -> Finding:
    """The gap between the best and the worst optimizer, as a mean over epochs."""
    table = [part.runs(optimizer=name, layca=layca) for layca in SIDES for name in OPTIMIZERS]
    curves = [[line["curves"]["train_accuracy"] for line in seed] for seed in results.lines(table)]
    middle = len(OPTIMIZERS)
    gaps = [[_mean_gap(seed[:middle]), _mean_gap(seed[middle:])] for seed in curves]
    alone, with_layca = without_lost(np.array(gaps)).T
    ours = f"gap {spread(alone)} alone, {spread(with_layca)} with Layca"
    return Finding(ours, {"difference": alone - with_layca, "of a third": alone / 3 - with_layca})


def _mean_gap(curves: list[list[float]]) -> float:
    epochs = min(map(len, curves))
    return float(np.mean(np.ptp(np.array([curve[:epochs] for curve in curves], float), axis=0)))


def claims(preset: str) -> list[Claim]:
    return [
        Claim(
            f"With Layca the five optimizers train alike: {part.task}",
            "curves only",
            partial(layca_trains_alike, part),
        )
        for part in SECTION6[preset]
    ]
