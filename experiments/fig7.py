"""Figure 7: the learning rate of SGD, chosen among ten for alpha = 0.

The paper chose on the test images of CIFAR-10 and CIFAR-100; here a tenth of the training images is held out.
The winner is the task's own learning rate (`training/tasks.py`), and serves all alpha in Figure 2. On the
embedded tasks 103 images are held out, so where runs are cheap the choice is by several seeds, none of them
Figure 2's; there Layca's ten rates are tried too (A.2.1: 3^-3 is best).
"""

from functools import partial

import numpy as np
from matplotlib.figure import Figure

from experiments.claims import Claim, Finding
from experiments.curves import panels
from experiments.fig2 import STYLES
from experiments.presets import SECTION5, Part
from experiments.results import Results
from experiments.runs import Training, training, validation_accuracy

LOG = "fig7"
POWERS = range(-7, 3)
RATES = [3.0**i for i in POWERS]
SEEDS = {"mnist5k-mlp": (10, 11, 12)}


def candidates(task: str, rate: float, layca: bool = False) -> list[Training]:
    """The runs that judge a rate."""
    flags = {"task": task, "layca": layca, "learning_rate": rate, "validation": True}
    return [training(seed=seed, **flags) for seed in SEEDS.get(task, (10,))]


def layca_tasks(preset: str) -> list[str]:
    return [part.task for part in SECTION5[preset] if part.task in SEEDS]


def runs(preset: str) -> list[Training]:
    sides = [(part.task, False) for part in SECTION5[preset]]
    sides += [(task, True) for task in layca_tasks(preset)]
    return [run for task, layca in sides for rate in RATES for run in candidates(task, rate, layca)]


def choose(task: str, results: Results, layca: bool = False) -> float:
    """The rate with the best accuracy on held-out images, averaged over seeds."""
    found = {
        rate: np.mean([validation_accuracy(results.of(run)) for run in candidates(task, rate, layca)])
        for rate in RATES
    }
    return max(found, key=found.__getitem__)


def draw(preset: str, results: Results) -> Figure:
    figure, axes = panels(1, len(SECTION5[preset]))
    for axis, part in zip(axes[0], SECTION5[preset], strict=True):
        for layca in (True, False) if part.task in layca_tasks(preset) else (False,):
            means = [results.mean(candidates(part.task, rate, layca)) for rate in RATES]
            label, color, marker = STYLES[layca]
            axis.plot(POWERS, means, marker=marker, ms=4, color=color, label=label)
        best = choose(part.task, results)
        axis.axvline(POWERS[RATES.index(best)], color="C1", ls=":", label="chosen for SGD on held-out images")
        axis.set(title=part.task, xlabel="learning rate, power of 3", ylim=(0, 1))
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("test accuracy")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def sgd_needs_a_search(part: Part, results: Results) -> Finding:
    means = [results.mean(candidates(part.task, rate)) for rate in RATES]
    best = POWERS[RATES.index(choose(part.task, results))]
    ours = f"3^{best}; test accuracy {', '.join(f'{mean:.3f}' for mean in means)}"
    return ours, [best not in (POWERS[0], POWERS[-1])]


def three_to_minus_three(task: str, results: Results) -> Finding:
    means = [results.mean(candidates(task, rate, True)) for rate in RATES]
    best = POWERS[RATES.index(choose(task, results, layca=True))]
    ours = f"3^{best}; test accuracy {', '.join(f'{mean:.3f}' for mean in means)}"
    return ours, [best == -3, abs(best + 3) <= 1]


def claims(preset: str) -> list[Claim]:
    return [
        Claim(
            f"SGD's best rate lies inside of the grid: {part.task}",
            "3^0, 3^-1, 3^-1",
            partial(sgd_needs_a_search, part),
        )
        for part in SECTION5[preset]
    ] + [
        Claim(
            f"Layca's best rate is 3^-3: {task}",
            "3^-3 in all experiments",
            partial(three_to_minus_three, task),
        )
        for task in layca_tasks(preset)
    ]
