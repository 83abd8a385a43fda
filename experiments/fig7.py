"""Figure 7: the learning rate of SGD for alpha = 0, chosen among ten, or five where runs take long.

The paper chose the rates for CIFAR-10 and CIFAR-100 on test images; here a tenth of the training images is
held out. Figure 2 shows runs that reach 98 % training accuracy, so a rate that stays below is not chosen if
others reach it. The chosen rate is the task's default (`training/tasks.py`) and serves all alphas of Figure
2; the paper's own tasks have the authors' rates. Where fewer than 1,000 images are held out, three seeds
choose, none of which Figure 2 uses. Layca's rates are tried too (A.2.1: 3^-3 is best).
"""

from matplotlib.figure import Figure

from experiments import choice
from experiments.claims import Claim, Finding, by_task
from experiments.curves import STYLES, titled_panels
from experiments.experiment import Experiment
from experiments.fig2 import TRAINED
from experiments.presets import SECTION5, Setup
from experiments.results import Results
from experiments.runs import Training, training

POWERS = range(-7, 3)
# Where runs take minutes, the rates around SGD's best and around Layca's.
FEW = {False: range(-3, 2), True: range(-5, 0)}


def powers(task: str, layca: bool = False) -> range:
    """Returns the powers of 3 that are tried."""
    return FEW[layca] if task.startswith(("cifar16", "mnist5k-vgg")) else POWERS


def candidates(task: str, layca: bool = False) -> list[list[Training]]:
    """Returns, per power of 3, the runs that judge the rate, one per seed."""
    flags = {"task": task, "layca": layca, "validation": True}
    return [
        [training(seed=seed, learning_rate=3.0**power, **flags) for seed in choice.seeds_of(task)]
        for power in powers(task, layca)
    ]


def runs(preset: str) -> list[Training]:
    tables = [candidates(setup.task, layca) for layca in (False, True) for setup in SECTION5[preset]]
    return [run for table in tables for seeds in table for run in seeds]


def choose(task: str, results: Results, layca: bool = False) -> int:
    """Returns the power of 3 of the best rate."""
    tried = candidates(task, layca)
    fits = choice.accuracies("train_accuracy", tried, results).mean(axis=1) >= TRAINED
    kept = [i for i in range(len(tried)) if fits[i] or not fits.any()]
    return choice.choose([powers(task, layca)[i] for i in kept], [tried[i] for i in kept], results)


def draw(preset: str, results: Results) -> Figure:
    tasks = [setup.task for setup in SECTION5[preset]]
    figure, axes = titled_panels(tasks, "test accuracy", xlabel="learning rate, power of 3")
    for axis, task in zip(axes, tasks, strict=True):
        for layca, (label, color, marker) in STYLES.items():
            means = choice.accuracies("test_accuracy", candidates(task, layca), results).mean(axis=1)
            axis.plot(powers(task, layca), means, marker=marker, ms=4, color=color, label=label)
        label = "chosen for SGD on held-out images"
        axis.axvline(choose(task, results), color="C1", ls=":", label=label)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def sgd_needs_a_search(setup: Setup, results: Results) -> Finding:
    """Compares the chosen rate with both ends of the grid, on held-out images."""
    found = choice.accuracies("validation_accuracy", candidates(setup.task), results)
    chosen = powers(setup.task).index(choose(setup.task, results))
    margins = {"− lowest rate": found[chosen] - found[0], "− highest rate": found[chosen] - found[-1]}
    return Finding(_listed(setup.task, False, results), margins)


def three_to_minus_three(setup: Setup, results: Results) -> Finding:
    """Compares 3^-3 with its neighbours, on held-out images."""
    found = choice.accuracies("validation_accuracy", candidates(setup.task, True), results)
    middle = powers(setup.task, True).index(-3)
    margins = {f"− 3^{i - 3}": found[middle] - found[middle + i] for i in (-1, 1)}
    return Finding(_listed(setup.task, True, results), margins)


def _listed(task: str, layca: bool, results: Results) -> str:
    means = choice.accuracies("test_accuracy", candidates(task, layca), results).mean(axis=1)
    tried = powers(task, layca)
    return (
        f"3^{choose(task, results, layca)}; test accuracy {', '.join(f'{mean:.3f}' for mean in means)}"
        f" from 3^{tried[0]} to 3^{tried[-1]}; on held-out images"
    )


def claims(preset: str) -> list[Claim]:
    return by_task(
        SECTION5[preset],
        ("SGD's best rate lies inside of the grid", "3^0, 3^-1, 3^-1", sgd_needs_a_search),
        ("Layca's best rate is 3^-3", "3^-3 in all experiments", three_to_minus_three),
    )


FIG7 = Experiment("fig7", log="fig7", runs=runs, draw=draw, claims=claims)
