"""A.2.3: waiting longer before the learning rate drops generalises better.

No figure in the paper. The learning rate stays for a number of epochs, and then drops twice with a fixed
number of epochs after each, so only the wait differs.
"""

from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import optax
from matplotlib.figure import Figure

import train
from experiments.claims import Claim, Finding, slope
from experiments.curves import draw_means, panels
from experiments.experiment import Experiment
from experiments.fig2 import STYLES
from experiments.presets import SECTION5
from experiments.results import Results
from experiments.runs import Training
from training.optimizer import drop_schedule, make_optimizer

WAITS = {"laptop": (6, 12, 24, 48, 96, 192), "small": (5, 20, 80), "paper": (10, 20, 40, 80, 160)}
# Epochs after each of two drops.
AFTER = {"laptop": 6, "small": 5, "paper": 10}
FACTOR = 0.2


@dataclass(frozen=True)
class Waiting(Training):
    """A run whose learning rate drops after `wait` epochs and after `after` more."""

    wait: int
    after: int
    PROGRAM = "plateau-length"

    def optimizer(self) -> Any:
        steps = train.TASKS[self.config.task].num_training_images(self.config.validation)
        return _dropping(self.wait, self.after, steps // self.config.batch_size)


@cache
def _dropping(wait: int, after: int, steps_per_epoch: int) -> Any:
    """`make_optimizer` with another schedule; the same function for the same hparams."""
    mine = drop_schedule([wait * steps_per_epoch, (wait + after) * steps_per_epoch], FACTOR)

    def make(
        name: str, with_layca: bool, hparams: Any, depths: Any, schedule: optax.Schedule
    ) -> optax.GradientTransformationExtraArgs:
        del schedule
        return make_optimizer(name, with_layca, hparams, depths, mine)

    return make


def waiting(preset: str, wait: int, layca: bool) -> list[Training]:
    after, runs = AFTER[preset], SECTION5[preset][0].runs(layca=layca)
    return [Waiting(replace(run.config, epochs=wait + 2 * after), wait, after) for run in runs]


def runs(preset: str) -> list[Training]:
    return [run for layca in STYLES for wait in WAITS[preset] for run in waiting(preset, wait, layca)]


def draw(preset: str, results: Results) -> Figure:
    figure, ((axis,),) = panels(1, 1, size=(4.5, 3.2))
    for layca, (label, color, marker) in STYLES.items():
        table = [waiting(preset, wait, layca) for wait in WAITS[preset]]
        draw_means(axis, WAITS[preset], table, results, color=color, marker=marker, label=label)
    axis.set(xlabel="epochs before the learning rate drops", ylabel="test accuracy", xscale="log")
    axis.set_xticks(WAITS[preset], labels=[str(wait) for wait in WAITS[preset]])
    axis.minorticks_off()
    axis.legend()
    return figure


def longer_is_better(preset: str, layca: bool, results: Results) -> Finding:
    """The longest wait against the shortest, and the trend per doubling."""
    waits = WAITS[preset]
    found = results.paired([waiting(preset, wait, layca) for wait in waits])
    means = ", ".join(f"{mean:.3f}" for mean in found.mean(axis=1))
    ours = f"{means} after {', '.join(map(str, waits))} epochs"
    return Finding(ours, {"ends": found[-1] - found[0], "rise per doubling": slope(found, np.log2(waits))})


def claims(preset: str) -> list[Claim]:
    return [
        Claim(
            f"Longer plateaus generalise better: {label}",
            '"systematically"',
            partial(longer_is_better, preset, layca),
        )
        for layca, (label, _, _) in STYLES.items()
    ]


PLATEAU_LENGTH = Experiment("plateau-length", log="plateau-length", runs=runs, draw=draw, claims=claims)
