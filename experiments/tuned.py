"""Compares Layca on SGD with other methods, each at its best learning rate.

The paper has no figure of this. Rates are chosen on held-out images, with other seeds than those that are
compared (SGD's in Figure 7). AdamW decays kernels by 0.1 times the learning rate per step, outside of Adam's
moments.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import optax
from matplotlib.figure import Figure

from experiments import choice, fig7
from experiments.claims import Claim, Finding
from experiments.curves import draw_dots, name_rows, panel
from experiments.experiment import Experiment
from experiments.results import MissingRunError, Results, spread
from experiments.runs import Run, Training, distinct, training
from experiments.variants import with_rates
from layca_optax import layca
from training.optimizer import DIRECTIONS

DECAY = 0.1
SEEDS = (0, 1, 2, 3, 4)
TASKS = {"laptop": "mnist5k-mlp", "small": "cifar16-vgg25"}
# Optimizer, whether with Layca, and the powers of 3 that are tried.
METHODS = {
    "Layca": ("sgd", True, range(-5, -1)),
    "SGD": ("sgd", False, ()),
    "Adam": ("adam", False, range(-6, -2)),
    "AdamW": ("adamw", False, range(-6, -2)),
    "momentum": ("momentum", False, range(-4, 0)),
    "Layca on Adam": ("adam", True, range(-6, -2)),
}
# The powers that the logs choose.
CHOSEN = {
    "mnist5k-mlp": {
        "Layca": -3,
        "SGD": 0,
        "Adam": -3,
        "AdamW": -4,
        "momentum": -2,
        "Layca on Adam": -4,
    },
    "cifar16-vgg25": {
        "Layca": -3,
        "SGD": -1,
        "Adam": -4,
        "AdamW": -5,
        "momentum": -2,
        "Layca on Adam": -5,
    },
}


@dataclass(frozen=True)
class Decoupled(Training):
    """A run with AdamW; the optimizer in its configuration is Adam."""

    decay: float = DECAY
    PROGRAM = "adamw"

    def optimizer(self) -> Any:
        return adamw


def _adamw(name: str, rates: Any, depths: Any) -> optax.GradientTransformationExtraArgs:
    decay = optax.add_decayed_weights(DECAY, mask=jax.tree.map(lambda depth: depth >= 0, depths))
    return optax.chain(DIRECTIONS[name](), decay, layca(rates, rotate=lambda path, leaf: None))


adamw = with_rates(_adamw)


def run(task: str, method: str, seed: int, power: int, **flags: Any) -> Training:
    """Returns one run of a method, its learning rate a power of 3."""
    optimizer, with_layca, _ = METHODS[method]
    flags = {"task": task, "layca": with_layca, "learning_rate": 3.0**power, "seed": seed, **flags}
    if optimizer == "adamw":
        return Decoupled(training(optimizer="adam", **flags).config)
    return training(optimizer=optimizer, **flags)


def compared(task: str, method: str) -> list[Training]:
    """Returns one run per seed, at the chosen rate."""
    return [run(task, method, seed, CHOSEN[task][method]) for seed in SEEDS]


def candidates(task: str, method: str) -> list[list[Training]]:
    """Returns, per power of 3, the runs that judge the rate, one per seed."""
    seeds, powers = choice.seeds_of(task), METHODS[method][2]
    return [[run(task, method, seed, power, validation=True) for seed in seeds] for power in powers]


def choose(task: str, method: str, results: Results) -> int:
    """Returns the power with the best accuracy on held-out images; SGD's runs are those of Figure 7."""
    if method == "SGD":
        return fig7.choose(task, results)
    return choice.choose(METHODS[method][2], candidates(task, method), results)


def runs(preset: str) -> list[Run]:
    """Returns what matters most first, and seed by seed, so that an unfinished log has pairs."""
    task, found = TASKS[preset], []
    for methods in (list(METHODS)[:3], list(METHODS)[3:]):
        by_seed = zip(*(compared(task, method) for method in methods), strict=True)
        found += [run for seed in by_seed for run in seed]
        found += [run for method in methods for runs in candidates(task, method) for run in runs]
    return list(distinct(found).values())


def draw(preset: str, results: Results) -> Figure:
    figure, axis = panel((5.5, 3.2))
    for row, method in enumerate(METHODS):
        draw_dots(axis, row, results.accuracies(compared(TASKS[preset], method)), "C0")
    axis.set(xlabel="test accuracy", title=TASKS[preset])
    name_rows(axis, list(METHODS))
    return figure


def layca_is_better(task: str, method: str, results: Results) -> Finding:
    layca, other = results.paired([compared(task, "Layca"), compared(task, method)])
    unconfirmed = " and ".join(name for name in ("Layca", method) if not is_chosen(task, name, results))
    note = f"; the rate of {unconfirmed} is not confirmed by held-out images yet" if unconfirmed else ""
    return Finding(f"{spread(layca)} against {spread(other)}{note}", {"difference": layca - other})


def is_chosen(task: str, method: str, results: Results) -> bool:
    """Says whether the logs choose the rate at which the method is compared."""
    try:
        return choose(task, method, results) == CHOSEN[task][method]
    except MissingRunError:
        return False


def claims(preset: str) -> list[Claim]:
    task = TASKS[preset]
    return [
        Claim(
            f"On {task} Layca on SGD generalises better than another optimizer, each at its best rate",
            "+8.9 over SGD on c10-cnn1",
            partial(layca_is_better, task, method),
            method,
        )
        for method in METHODS
        if method != "Layca"
    ]


TUNED = Experiment("tuned", log="tuned", runs=runs, draw=draw, claims=claims, presets=tuple(TASKS))
