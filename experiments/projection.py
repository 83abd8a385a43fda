"""Layca against the same without projecting the step on the tangent of the sphere (`layca(tangent=False)`).

No figure in the paper; the values are the authors' for c10-cnn1.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import optax
from matplotlib.figure import Figure

from experiments.claims import Claim, Finding
from experiments.curves import panels
from experiments.presets import SECTION5
from experiments.results import Results, spread
from experiments.runs import Training
from layca_optax import alpha_learning_rates, layca
from training.optimizer import DIRECTIONS

LOG = "projection"
ALPHAS = (-0.2, 0.0, 0.2, 0.4)


@dataclass(frozen=True)
class Unprojected(Training):
    """A run with Layca whose steps are not projected."""

    def numbers(self) -> dict[str, Any]:
        return {**super().numbers(), "program": "unprojected"}

    def optimizer(self) -> Any:
        return without_projection


def without_projection(
    name: str, with_layca: bool, hparams: Any, depths: Any, schedule: optax.Schedule
) -> optax.GradientTransformationExtraArgs:
    """In the place of `make_optimizer`."""
    assert with_layca
    rates = alpha_learning_rates(lambda count: hparams.learning_rate * schedule(count), hparams.alpha, depths)
    return optax.chain(DIRECTIONS[name](), layca(rates, tangent=False))


def alphas(preset: str) -> list[float]:
    return [alpha for alpha in ALPHAS if alpha in SECTION5[preset][0].alphas]


def sides(preset: str, alpha: float) -> dict[str, list[Training]]:
    projected = SECTION5[preset][0].runs(alpha=alpha)
    return {"with projection": projected, "without": [Unprojected(run.config) for run in projected]}


def runs(preset: str) -> list[Training]:
    return [run for alpha in alphas(preset) for side in sides(preset, alpha).values() for run in side]


def draw(preset: str, results: Results) -> Figure:
    figure, ((axis,),) = panels(1, 1, size=(4.5, 3.2))
    for label in sides(preset, 0.0):
        found = [results.accuracies(sides(preset, alpha)[label]) for alpha in alphas(preset)]
        axis.errorbar(alphas(preset), np.mean(found, 1), np.std(found, 1), marker="o", label=label)
    axis.set(xlabel="α", ylabel="test accuracy", title=SECTION5[preset][0].task)
    axis.grid(alpha=0.3)
    axis.legend()
    return figure


def projection_helps(preset: str, alpha: float, results: Results) -> Finding:
    projected, not_projected = results.paired(list(sides(preset, alpha).values()))
    ours = f"{spread(projected)} with, {spread(not_projected)} without"
    return Finding(ours, {"difference": projected - not_projected})


def claims(preset: str) -> list[Claim]:
    paper = {-0.2: ".850, .828", 0.0: ".892, .850", 0.2: ".886, .825", 0.4: ".850, .711"}
    return [
        Claim(
            f"Projecting the step helps: α = {alpha:g}",
            paper[alpha],
            partial(projection_helps, preset, alpha),
        )
        for alpha in alphas(preset)
    ]
