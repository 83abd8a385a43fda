"""Figures 4, 9 and 10, on the network of Section 6.2: five optimizers, alone and with Layca.

Figure 4: alone, adaptive methods (solid) generalise worse than others (dashed); with Layca all generalise
alike. Figure 9: the same for training accuracy. Figure 10: alone, each optimizer turns layers in its own way;
with Layca all turn them alike.

Learning rates are the defaults of `training/tasks.py`: the paper's for its own network; on the others
those of Keras for the adaptive methods, except for Adam's 3^-4 on CIFAR-10 at 16 x 16.
"""

from functools import partial

import numpy as np
from matplotlib.figure import Figure

from experiments.claims import Claim, Finding, by_task
from experiments.curves import draw_curve, draw_rotation, final_rotation, panels, share_height
from experiments.experiment import Experiment
from experiments.presets import NAMES, OPTIMIZERS, SECTION6, Setup
from experiments.results import Results, finite_seeds, spread
from experiments.runs import Training
from layca_optax.plot import scale_of_layers

SIDES = {False: "alone", True: "with Layca"}


def table(setup: Setup) -> list[list[Training]]:
    """Returns the runs of every seed, by side and optimizer."""
    return [setup.runs(optimizer=name, layca=layca) for layca in SIDES for name in OPTIMIZERS]


def runs(preset: str) -> list[Training]:
    return [run for setup in SECTION6[preset] for seeds in table(setup) for run in seeds]


def draw_curves(curve: str, label: str, preset: str, results: Results) -> Figure:
    """Draws a row per task: optimizers alone (left) and with Layca (right), averaged over seeds."""
    figure, axes = panels(len(SECTION6[preset]), 2)
    for row, setup in zip(axes, SECTION6[preset], strict=True):
        for axis, (layca, side) in zip(row, SIDES.items(), strict=True):
            for optimizer in OPTIMIZERS:
                found = [results.of(run) for run in setup.runs(optimizer=optimizer, layca=layca)]
                adaptive = optimizer in ("rmsprop", "adagrad", "adam")
                draw_curve(axis, found, curve, label=NAMES[optimizer], ls="-" if adaptive else "--")
            axis.set(title=f"{setup.task}, {side}")
        row[1].sharey(row[0])
        row[0].set_ylabel(label)
    for axis in axes[-1]:
        axis.set_xlabel("epoch")
    axes[0, 1].legend(fontsize="small")
    return figure


def draw_rotations(preset: str, results: Results) -> Figure:
    rows = [(setup, layca) for setup in SECTION6[preset] for layca in SIDES]
    figure, axes = panels(len(rows), len(OPTIMIZERS), size=(2.3, 2.1))
    for line, (setup, layca) in zip(axes, rows, strict=True):
        for axis, optimizer in zip(line, OPTIMIZERS, strict=True):
            draw_rotation(axis, results.of(setup.runs(optimizer=optimizer, layca=layca)[0]))
            # The number of epochs depends on the task.
            axis.tick_params(labelbottom=layca, labelleft=axis is line[0])
        share_height(line)
        line[0].set_ylabel(f"{setup.task}\n{SIDES[layca]}")
    for axis, optimizer in zip(axes[0], OPTIMIZERS, strict=True):
        axis.set_title(NAMES[optimizer])
    figure.supxlabel("epoch")
    scale_of_layers(figure, axes.flat)
    return figure


def accuracies(setup: Setup, results: Results) -> np.ndarray:
    """Returns test accuracies alone and with Layca, each of shape `(optimizers, seeds)`."""
    return results.paired(table(setup)).reshape(2, len(OPTIMIZERS), -1)


def layca_closes_the_gap(setup: Setup, results: Results) -> Finding:
    """Compares the gaps between the best and the worst optimizer."""
    found = accuracies(setup, results)
    means = [", ".join(f"{mean:.3f}" for mean in side.mean(axis=1)) for side in found]
    alone, with_layca = np.ptp(found, axis=1)
    return Finding(
        "; ".join(f"{name} {side}" for name, side in zip(SIDES.values(), means, strict=True)),
        {"gap alone − with Layca": alone - with_layca, "a third of it − with Layca": alone / 3 - with_layca},
    )


def all_reach_the_best(setup: Setup, results: Results) -> Finding:
    """Says whether the worst optimizer with Layca is at most a point behind the best one without."""
    alone, with_layca = accuracies(setup, results)
    worst, best = with_layca.min(axis=0), alone.max(axis=0)
    ours = f"worst {spread(worst)} against best {spread(best)}"
    return Finding(ours, {"difference + .01": worst - best + 0.01})


def layca_trains_alike(setup: Setup, results: Results) -> Finding:
    """Compares the gaps in training accuracy between best and worst optimizer, averaged over epochs."""
    curves = [[line["curves"]["train_accuracy"] for line in seed] for seed in results.lines(table(setup))]
    middle = len(OPTIMIZERS)
    gaps = [[_mean_gap(seed[:middle]), _mean_gap(seed[middle:])] for seed in curves]
    alone, with_layca = finite_seeds(np.array(gaps)).T
    ours = f"gap {spread(alone)} alone, {spread(with_layca)} with Layca"
    return Finding(ours, {"difference": alone - with_layca, "of a third": alone / 3 - with_layca})


def _mean_gap(curves: list[list[float]]) -> float:
    epochs = min(map(len, curves))
    return float(np.mean(np.ptp(np.array([curve[:epochs] for curve in curves], float), axis=0)))


def layca_turns_alike(setup: Setup, results: Results) -> Finding:
    """Compares the deviation of a layer's rotation over optimizers, relative to its mean."""
    seeds = [[final_rotation(line) for line in seed] for seed in results.lines(table(setup))]
    # Of shape (seeds, sides, optimizers, layers).
    rotation = np.array(seeds).reshape(len(seeds), 2, len(OPTIMIZERS), -1)
    apart = np.mean(rotation.std(axis=2) / rotation.mean(axis=2), axis=-1)
    alone, with_layca = finite_seeds(apart).T
    ours = (
        f"a layer's rotation deviates over optimizers by {alone.mean():.2f} of its mean alone,"
        f" {with_layca.mean():.2f} with Layca"
    )
    return Finding(ours, {"difference": alone - with_layca, "… of half": alone / 2 - with_layca})


def generalise_alike(preset: str) -> list[Claim]:
    names = ", ".join(NAMES[name] for name in OPTIMIZERS)
    alike = f"With Layca {names} generalise alike, alone they do not"
    best = "With Layca all of them reach the best accuracy of any alone (6.2)"
    paper = "alone .925, .922, .912, .890, .914; with Layca .923, .927, .923, .925, .927"
    rows = (alike, paper, layca_closes_the_gap), (best, paper, all_reach_the_best)
    return by_task(SECTION6[preset], *rows)


def train_alike(preset: str) -> list[Claim]:
    text = "With Layca the five optimizers train alike"
    return by_task(SECTION6[preset], (text, "curves only", layca_trains_alike))


def turn_alike(preset: str) -> list[Claim]:
    text = "With Layca the five optimizers turn layers alike"
    return by_task(SECTION6[preset], (text, "curves only", layca_turns_alike))


FIG4, FIG9, FIG10 = (
    Experiment(name, log="fig4", runs=runs, draw=draw, claims=claims)
    for name, draw, claims in (
        ("fig4", partial(draw_curves, "test_accuracy", "test accuracy"), generalise_alike),
        ("fig9", partial(draw_curves, "train_accuracy", "training accuracy"), train_alike),
        ("fig10", draw_rotations, turn_alike),
    )
)
