"""Figure 7: the learning rate of SGD, chosen among ten for alpha = 0.

The paper chose on the test images of CIFAR-10 and CIFAR-100; here a tenth of the training images is held out.
The winner is the task's own learning rate (`training/tasks.py`), and serves all alpha in Figure 2; those of
the paper's own tasks are the authors'. On the embedded tasks 103 images are held out, so the choice is by
several seeds, none of them Figure 2's. Layca's ten rates are tried too (A.2.1: 3^-3 is best).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import train
from experiments.claims import Claim, Finding, by_task
from experiments.curves import panels
from experiments.experiment import Experiment
from experiments.fig2 import STYLES
from experiments.presets import SECTION5, Part
from experiments.results import Results
from experiments.runs import Training, training

POWERS = range(-7, 3)
# Where runs take minutes, those around SGD's best and Layca's.
FEW = {False: range(-3, 2), True: range(-5, 0)}
# Fewer than 1,000 held-out images need several seeds.
SEEDS, ENOUGH = (10, 11, 12), 1000


def powers(task: str, layca: bool = False) -> range:
    """The powers of 3 that are tried."""
    return FEW[layca] if task.startswith("cifar16") else POWERS


def seeds_of(task: str) -> tuple[int, ...]:
    """The seeds of the runs that judge a rate."""
    row = train.TASKS[task]
    enough = row.train_size - row.num_training_images(validation=True) >= ENOUGH
    return SEEDS[:1] if enough else SEEDS


def candidates(task: str, layca: bool = False) -> list[list[Training]]:
    """By power of 3, the runs that judge the rate, by seed."""
    flags = {"task": task, "layca": layca, "validation": True}
    return [
        [training(seed=seed, learning_rate=3.0**power, **flags) for seed in seeds_of(task)]
        for power in powers(task, layca)
    ]


def runs(preset: str) -> list[Training]:
    tables = [candidates(part.task, layca) for layca in (False, True) for part in SECTION5[preset]]
    return [run for table in tables for seeds in table for run in seeds]


def accuracies(name: str, table: Sequence[Sequence[Training]], results: Results) -> np.ndarray:
    """Final accuracies of one kind, `(rates, seeds)`, of the seeds that all rates are logged with.

    Raises:
      MissingRunError: there is no such seed.
    """
    return np.array([[final(line, name) for line in seed] for seed in results.lines(table)]).T


def final(line: Mapping[str, Any], name: str) -> float:
    """An accuracy of a logged run after its last epoch; if the task tests its best epoch, after that."""
    held_out = [accuracy or 0.0 for accuracy in line["curves"]["validation_accuracy"]]
    best_epoch = train.TASKS[line["config"]["task"]].validation
    return line["curves"][name][int(np.argmax(held_out)) if best_epoch else -1] or 0.0


def choose(powers: Sequence[int], table: Sequence[Sequence[Training]], results: Results) -> int:
    """The power with the best accuracy on held-out images, of those whose runs are in the table."""
    return powers[best(accuracies("validation_accuracy", table, results).mean(axis=1))]


def choice(task: str, results: Results, layca: bool = False) -> int:
    """The power of 3 that this experiment chooses."""
    return choose(powers(task, layca), candidates(task, layca), results)


def best(accuracies: np.ndarray) -> int:
    """Where the best accuracy stands; of equal ones, that with the better neighbours."""
    found = accuracies.round(6)
    neighbours = np.convolve(np.pad(found, 1, mode="edge"), [1, 0, 1], mode="valid").round(6)
    return max(range(len(found)), key=lambda i: (found[i], neighbours[i]))


def draw(preset: str, results: Results) -> Figure:
    figure, axes = panels(1, len(SECTION5[preset]))
    for axis, part in zip(axes[0], SECTION5[preset], strict=True):
        for layca, (label, color, marker) in STYLES.items():
            means = accuracies("test_accuracy", candidates(part.task, layca), results).mean(axis=1)
            axis.plot(powers(part.task, layca), means, marker=marker, ms=4, color=color, label=label)
        label = "chosen for SGD on held-out images"
        axis.axvline(choice(part.task, results), color="C1", ls=":", label=label)
        axis.set(title=part.task, xlabel="learning rate, power of 3", ylim=(0, 1))
    axes[0, 0].set_ylabel("test accuracy")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def sgd_needs_a_search(part: Part, results: Results) -> Finding:
    """On held-out images the chosen rate is better than both ends of the grid."""
    found = accuracies("validation_accuracy", candidates(part.task), results)
    chosen = best(found.mean(axis=1))
    parts = {"− lowest rate": found[chosen] - found[0], "− highest rate": found[chosen] - found[-1]}
    return Finding(_listed(part.task, False, results), parts)


def three_to_minus_three(part: Part, results: Results) -> Finding:
    """On held-out images, against the neighbours of 3^-3."""
    found = accuracies("validation_accuracy", candidates(part.task, True), results)
    middle = powers(part.task, True).index(-3)
    parts = {f"− 3^{i - 3}": found[middle] - found[middle + i] for i in (-1, 1)}
    return Finding(_listed(part.task, True, results), parts)


def _listed(task: str, layca: bool, results: Results) -> str:
    means = accuracies("test_accuracy", candidates(task, layca), results).mean(axis=1)
    tried = powers(task, layca)
    return (
        f"3^{choice(task, results, layca)}; test accuracy {', '.join(f'{mean:.3f}' for mean in means)}"
        f" from 3^{tried[0]} to 3^{tried[-1]}; on held-out images"
    )


def claims(preset: str) -> list[Claim]:
    parts, inside, best = (
        SECTION5[preset],
        "SGD's best rate lies inside of the grid",
        "Layca's best rate is 3^-3",
    )
    return [
        *by_task(parts, inside, "3^0, 3^-1, 3^-1", sgd_needs_a_search),
        *by_task(parts, best, "3^-3 in all experiments", three_to_minus_three),
    ]


FIG7 = Experiment("fig7", log="fig7", runs=runs, draw=draw, claims=claims)
