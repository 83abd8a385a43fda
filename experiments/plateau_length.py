"""A.2.3: networks generalise better if the learning rate drops later.

The paper has no figure of this. The learning rate drops twice, with the same number of epochs after each
drop, so runs differ only in the epochs before the first one.
"""

from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import optax
from matplotlib.figure import Figure

import train
from experiments.claims import Claim, Finding, slope
from experiments.curves import STYLES, draw_means, panel
from experiments.experiment import Experiment
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
    """A run whose learning rate drops after `wait` epochs and again after `after` more."""

    wait: int
    after: int
    PROGRAM = "plateau-length"

    def optimizer(self) -> Any:
        images = train.TASKS[self.config.task].num_training_images(self.config.validation)
        return _dropping(self.wait, self.after, images // self.config.batch_size)


@cache
def _dropping(wait: int, after: int, steps_per_epoch: int) -> Any:
    """Returns `make_optimizer` with this schedule; the same function for the same arguments."""
    mine = drop_schedule([wait * steps_per_epoch, (wait + after) * steps_per_epoch], FACTOR)

    def make(
        name: str, with_layca: bool, hparams: Any, depths: Any, schedule: optax.Schedule
    ) -> optax.GradientTransformationExtraArgs:
        del schedule
        return make_optimizer(name, with_layca, hparams, depths, mine)

    return make


def waiting(preset: str, layca: bool) -> dict[int, list[Waiting]]:
    """Returns the runs of every seed by the epochs before the first drop."""
    after, runs = AFTER[preset], SECTION5[preset][0].runs(layca=layca)
    return {
        wait: [Waiting(replace(run.config, epochs=wait + 2 * after), wait, after) for run in runs]
        for wait in WAITS[preset]
    }


def runs(preset: str) -> list[Waiting]:
    return [run for layca in STYLES for seeds in waiting(preset, layca).values() for run in seeds]


def draw(preset: str, results: Results) -> Figure:
    figure, axis = panel()
    for layca, (label, color, marker) in STYLES.items():
        table = waiting(preset, layca)
        draw_means(axis, [*table], table.values(), results, color=color, marker=marker, label=label)
    axis.set(xlabel="epochs before the learning rate drops", ylabel="test accuracy", xscale="log")
    axis.set_xticks(WAITS[preset], labels=[str(wait) for wait in WAITS[preset]])
    axis.minorticks_off()
    axis.legend(loc="upper left")
    return figure


def longer_is_better(preset: str, layca: bool, results: Results) -> Finding:
    """Compares the longest wait with the shortest, and fits a line over the doublings."""
    waits = WAITS[preset]
    found = results.paired([*waiting(preset, layca).values()])
    means = ", ".join(f"{mean:.3f}" for mean in found.mean(axis=1))
    ours = f"{means} after {', '.join(map(str, waits))} epochs"
    return Finding(ours, {"ends": found[-1] - found[0], "rise per doubling": slope(found, np.log2(waits))})


def claims(preset: str) -> list[Claim]:
    text, paper = "Longer plateaus generalise better", '"systematically"'
    return [
        Claim(text, paper, partial(longer_is_better, preset, layca), label)
        for layca, (label, _, _) in STYLES.items()
    ]


PLATEAU_LENGTH = Experiment("plateau-length", log="plateau-length", runs=runs, draw=draw, claims=claims)
