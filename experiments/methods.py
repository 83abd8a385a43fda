"""Section 6.2's runs, which Figures 4, 9 and 10 show: five optimizers, alone and with Layca."""

from matplotlib.figure import Figure

from experiments.curves import draw_curve, panels
from experiments.presets import NAMES, OPTIMIZERS, SECTION6
from experiments.results import Results
from experiments.runs import Training

SIDES = {False: "alone", True: "with Layca"}


def method_runs(preset: str) -> list[Training]:
    return [
        run
        for part in SECTION6[preset]
        for layca in SIDES
        for optimizer in OPTIMIZERS
        for run in part.runs(optimizer=optimizer, layca=layca)
    ]


def draw_methods(preset: str, results: Results, curve: str, label: str) -> Figure:
    """A row a task; optimizers alone (left) and with Layca (right), averaged over seeds."""
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
