"""Figures 4, 9 and 10, on Section 6.2: five optimizers, alone and with Layca.

Figure 4: adaptive methods (solid) generalise worse than others (dashed) alone, and alike with Layca.
Figure 9: the same for training accuracy. Figure 10: alone, each optimizer turns layers in its own way; with
Layca all turn them alike.

Learning rates are those of `training/tasks.py`: the paper's for its own network, Keras' defaults for the
adaptive methods on the others.
"""

from functools import partial

import numpy as np
from matplotlib.figure import Figure

from experiments.claims import Claim, Finding, by_task
from experiments.curves import draw_curve, draw_rotation, final_rotation, panels, share_height
from experiments.experiment import Experiment
from experiments.presets import NAMES, OPTIMIZERS, SECTION6, Part
from experiments.results import Results, spread, without_lost
from experiments.runs import Training
from layca_optax.plot import scale_of_layers

SIDES = {False: "alone", True: "with Layca"}


def table(part: Part) -> list[list[Training]]:
    """The runs of every seed, by side and optimizer."""
    return [part.runs(optimizer=name, layca=layca) for layca in SIDES for name in OPTIMIZERS]


def runs(preset: str) -> list[Training]:
    return [run for part in SECTION6[preset] for seeds in table(part) for run in seeds]


def draw_curves(curve: str, label: str, preset: str, results: Results) -> Figure:
    """A row per task; optimizers alone (left) and with Layca (right), averaged over seeds."""
    figure, axes = panels(len(SECTION6[preset]), 2)
    for row, part in zip(axes, SECTION6[preset], strict=True):
        for axis, (layca, side) in zip(row, SIDES.items(), strict=True):
            for optimizer in OPTIMIZERS:
                found = [results.of(run) for run in part.runs(optimizer=optimizer, layca=layca)]
                adaptive = optimizer in ("rmsprop", "adagrad", "adam")
                draw_curve(axis, found, curve, label=NAMES[optimizer], ls="-" if adaptive else "--")
            axis.set(title=f"{part.task}, {side}")
        row[1].sharey(row[0])
        row[0].set_ylabel(label)
    for axis in axes[-1]:
        axis.set_xlabel("epoch")
    axes[0, 1].legend(fontsize="small")
    return figure


def draw_rotations(preset: str, results: Results) -> Figure:
    rows = [(part, layca) for part in SECTION6[preset] for layca in SIDES]
    figure, axes = panels(len(rows), len(OPTIMIZERS), size=(2.3, 2.1))
    for line, (part, layca) in zip(axes, rows, strict=True):
        for axis, optimizer in zip(line, OPTIMIZERS, strict=True):
            draw_rotation(axis, results.of(part.runs(optimizer=optimizer, layca=layca)[0]))
            # Tasks differ in their epochs.
            axis.tick_params(labelbottom=layca, labelleft=axis is line[0])
        share_height(line)
        line[0].set_ylabel(f"{part.task}\n{SIDES[layca]}")
    for axis, optimizer in zip(axes[0], OPTIMIZERS, strict=True):
        axis.set_title(NAMES[optimizer])
    figure.supxlabel("epoch")
    scale_of_layers(figure, axes.flat)
    return figure


def accuracies(part: Part, results: Results) -> np.ndarray:
    """Test accuracies alone and with Layca, each of shape `(optimizers, seeds)`."""
    return results.paired(table(part)).reshape(2, len(OPTIMIZERS), -1)


def layca_closes_the_gap(part: Part, results: Results) -> Finding:
    found = accuracies(part, results)
    means = [", ".join(f"{mean:.3f}" for mean in side.mean(axis=1)) for side in found]
    alone, with_layca = np.ptp(found, axis=1)
    return Finding(
        "; ".join(f"{name} {side}" for name, side in zip(SIDES.values(), means, strict=True)),
        {"gap alone − with Layca": alone - with_layca, "a third of it − with Layca": alone / 3 - with_layca},
    )


def all_reach_the_best(part: Part, results: Results) -> Finding:
    """The worst with Layca is at most a point behind the best without."""
    alone, with_layca = accuracies(part, results)
    worst, best = with_layca.min(axis=0), alone.max(axis=0)
    ours = f"worst {spread(worst)} against best {spread(best)}"
    return Finding(ours, {"difference + .01": worst - best + 0.01})


def layca_trains_alike(part: Part, results: Results) -> Finding:
    """The gap between the best and the worst optimizer, as a mean over epochs."""
    curves = [[line["curves"]["train_accuracy"] for line in seed] for seed in results.lines(table(part))]
    middle = len(OPTIMIZERS)
    gaps = [[_mean_gap(seed[:middle]), _mean_gap(seed[middle:])] for seed in curves]
    alone, with_layca = without_lost(np.array(gaps)).T
    ours = f"gap {spread(alone)} alone, {spread(with_layca)} with Layca"
    return Finding(ours, {"difference": alone - with_layca, "of a third": alone / 3 - with_layca})


def _mean_gap(curves: list[list[float]]) -> float:
    epochs = min(map(len, curves))
    return float(np.mean(np.ptp(np.array([curve[:epochs] for curve in curves], float), axis=0)))


def layca_turns_alike(part: Part, results: Results) -> Finding:
    """How far a layer's rotation deviates over optimizers from its mean, averaged over layers."""
    seeds = [[final_rotation(line) for line in seed] for seed in results.lines(table(part))]
    # Of shape (seeds, sides, optimizers, layers).
    rotation = np.array(seeds).reshape(len(seeds), 2, len(OPTIMIZERS), -1)
    apart = np.mean(rotation.std(axis=2) / rotation.mean(axis=2), axis=-1)
    alone, with_layca = without_lost(apart).T
    ours = (
        f"a layer's rotation deviates over optimizers by {alone.mean():.2f} of its mean alone,"
        f" {with_layca.mean():.2f} with Layca"
    )
    return Finding(ours, {"difference": alone - with_layca, "… of half": alone / 2 - with_layca})


def fig4_claims(preset: str) -> list[Claim]:
    names = ", ".join(NAMES[name] for name in OPTIMIZERS)
    alike = f"With Layca {names} generalise alike, alone they do not"
    best = "With Layca all of them reach the best accuracy of any alone (6.2)"
    paper = "alone .925, .922, .912, .890, .914; with Layca .923, .927, .923, .925, .927"
    parts = SECTION6[preset]
    return by_task(parts, alike, paper, layca_closes_the_gap) + by_task(
        parts, best, paper, all_reach_the_best
    )


FIG4 = Experiment(
    "fig4",
    log="fig4",
    runs=runs,
    draw=partial(draw_curves, "test_accuracy", "test accuracy"),
    claims=fig4_claims,
)
FIG9 = Experiment(
    "fig9",
    log="fig4",
    runs=runs,
    draw=partial(draw_curves, "train_accuracy", "training accuracy"),
    claims=lambda preset: by_task(
        SECTION6[preset], "With Layca the five optimizers train alike", "curves only", layca_trains_alike
    ),
)
FIG10 = Experiment(
    "fig10",
    log="fig4",
    runs=runs,
    draw=draw_rotations,
    claims=lambda preset: by_task(
        SECTION6[preset], "With Layca the five optimizers turn layers alike", "curves only", layca_turns_alike
    ),
)
