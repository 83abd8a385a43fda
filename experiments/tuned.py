"""Compares optimizers with Layca and alone, each at its best learning rate.

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
from experiments.results import Results, spread
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
    "SGD": ("sgd", False, ()),  # those of Figure 7
    "Adam": ("adam", False, range(-6, -1)),
    "AdamW": ("adamw", False, range(-6, -2)),
    "momentum": ("momentum", False, range(-4, 0)),
    "Layca on Adam": ("adam", True, range(-6, -2)),
    "Layca on momentum": ("momentum", True, range(-6, -2)),
    "SGD_AMom": ("sgd_amom", False, range(-2, 3)),
    "Layca on SGD_AMom": ("sgd_amom", True, range(-6, -2)),
    "RMSProp": ("rmsprop", False, range(-7, -2)),
    "Layca on RMSProp": ("rmsprop", True, range(-5, -1)),
    "Adagrad": ("adagrad", False, range(-5, 0)),
    "Layca on Adagrad": ("adagrad", True, range(-5, -1)),
}
# On c10-cnn2, in Figure 4, with Keras' default rates for the adaptive methods alone.
PAPER = {
    "Adam": ".914 alone, .927 with Layca",
    "SGD_AMom": ".922 alone, .927 with Layca",
    "RMSProp": ".912 alone, .923 with Layca",
    "Adagrad": ".890 alone, .925 with Layca",
}
# The methods of each task, and the powers that the logs choose, as a test checks.
CHOSEN = {
    "mnist5k-mlp": {
        "Layca": -3,
        "SGD": 0,
        "Adam": -3,
        "AdamW": -4,
        "momentum": -2,
        "Layca on Adam": -4,
        "Layca on momentum": -4,
        "SGD_AMom": 0,
        "Layca on SGD_AMom": -4,
        "RMSProp": -5,
        "Layca on RMSProp": -3,
        "Adagrad": -3,
        "Layca on Adagrad": -3,
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


def pairs(task: str) -> dict[str, str | None]:
    """Returns, per method of the task without Layca, the one with Layca on the same optimizer, or `None`."""
    methods = CHOSEN[task]
    on = {METHODS[name][0]: name for name in methods if METHODS[name][1]}
    return {name: on.get(METHODS[name][0]) for name in methods if not METHODS[name][1]}


def runs(preset: str) -> list[Run]:
    """Returns what matters most first, and seed by seed, so that an unfinished log has pairs."""
    task, found = TASKS[preset], []
    names = list(CHOSEN[task])
    for methods in (names[:3], names[3:]):
        by_seed = zip(*(compared(task, method) for method in methods), strict=True)
        found += [run for seed in by_seed for run in seed]
        found += [run for method in methods for runs in candidates(task, method) for run in runs]
    return list(distinct(found).values())


def draw(preset: str, results: Results) -> Figure:
    task = TASKS[preset]
    figure, axis = panel((5.5, 1.4 + 0.3 * len(CHOSEN[task])))
    for row, method in enumerate(CHOSEN[task]):
        draw_dots(axis, row, results.accuracies(compared(task, method)), "C0")
    axis.set(xlabel="test accuracy", title=task)
    name_rows(axis, list(CHOSEN[task]))
    return figure


def is_better(task: str, first: str, second: str, results: Results) -> Finding:
    one, other = results.paired([compared(task, first), compared(task, second)])
    return Finding(f"{task}: {spread(one)} against {spread(other)}", {"difference": one - other})


def claims(preset: str) -> list[Claim]:
    task = TASKS[preset]
    on_sgd = [
        Claim(
            "Layca on SGD generalises better than another optimizer, each at its chosen rate",
            "+8.9 on c10-cnn1" if method == "SGD" else "–",
            partial(is_better, task, "Layca", method),
            method,
        )
        for method in CHOSEN[task]
        if method != "Layca"
    ]
    on_others = [
        Claim(
            "An optimizer generalises better with Layca than alone, each at its chosen rate",
            PAPER.get(name, "–"),
            partial(is_better, task, with_layca, name),
            name,
        )
        for name, with_layca in pairs(task).items()
        if with_layca not in (None, "Layca")
    ]
    return on_sgd + on_others


TUNED = Experiment("tuned", log="tuned", runs=runs, draw=draw, claims=claims, presets=tuple(TASKS))
