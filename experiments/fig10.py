"""Figure 10: layer-wise angle deviation curves of five optimizers, alone and with Layca.

Alone, each optimizer turns layers in its own way; with Layca all turn them alike.
"""

from functools import partial

import numpy as np
from matplotlib.figure import Figure

from experiments.claims import Claim, Finding
from experiments.curves import draw_rotation, final_rotation, layer_bar, panels
from experiments.methods import SIDES, method_runs
from experiments.presets import NAMES, OPTIMIZERS, SECTION6, Part
from experiments.results import Results
from experiments.runs import Training

LOG = "fig4"


def runs(preset: str) -> list[Training]:
    return method_runs(preset)


def draw(preset: str, results: Results) -> Figure:
    rows = [(part, layca) for part in SECTION6[preset] for layca in SIDES]
    figure, axes = panels(len(rows), len(OPTIMIZERS), size=(2.3, 2.1))
    for line, (part, layca) in zip(axes, rows, strict=True):
        for axis, optimizer in zip(line, OPTIMIZERS, strict=True):
            draw_rotation(axis, results.of(part.runs(optimizer=optimizer, layca=layca)[0]))
            # Tasks differ in their epochs.
            axis.tick_params(labelbottom=layca, labelleft=axis is line[0])
        line[0].set_ylabel(f"{part.task}\n{SIDES[layca]}")
    for axis, optimizer in zip(axes[0], OPTIMIZERS, strict=True):
        axis.set_title(NAMES[optimizer])
    figure.supxlabel("epoch")
    layer_bar(figure, axes)
    return figure


def layca_turns_alike(part: Part, results: Results) -> Finding:
    apart = {}
    for layca in SIDES:
        found = [results.of(part.runs(optimizer=name, layca=layca)[0]) for name in OPTIMIZERS]
        rotation = np.array([final_rotation(run) for run in found])
        apart[layca] = float(np.mean(rotation.std(axis=0) / rotation.mean(axis=0)))
    ours = (
        f"a layer's rotation deviates over optimizers by {apart[False]:.2f} of its mean alone,"
        f" {apart[True]:.2f} with Layca"
    )
    return ours, [apart[True] < apart[False], apart[True] < apart[False] / 2]


def claims(preset: str) -> list[Claim]:
    return [
        Claim(
            f"With Layca the five optimizers turn layers alike: {part.task}",
            "curves only",
            partial(layca_turns_alike, part),
        )
        for part in SECTION6[preset]
    ]
