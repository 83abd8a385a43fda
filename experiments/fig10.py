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
from experiments.results import Results, without_lost
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
    """How far a layer's rotation deviates over optimizers from its mean, averaged over layers."""
    table = [part.runs(optimizer=name, layca=layca) for layca in SIDES for name in OPTIMIZERS]
    seeds = [[final_rotation(line) for line in seed] for seed in results.lines(table)]
    # Of shape (seeds, sides, optimizers, layers).
    rotation = np.array(seeds).reshape(len(seeds), 2, len(OPTIMIZERS), -1)
    apart = np.mean(rotation.std(axis=2) / rotation.mean(axis=2), axis=-1)
    alone, with_layca = without_lost(apart).T
    ours = (
        f"a layer's rotation deviates over optimizers by {alone.mean():.2f} of its mean alone,"
        f" {with_layca.mean():.2f} with Layca"
    )
    return Finding(ours, {"difference": alone - with_layca, "… of half": alone / 2 - with_layca})


def claims(preset: str) -> list[Claim]:
    return [
        Claim(
            f"With Layca the five optimizers turn layers alike: {part.task}",
            "curves only",
            partial(layca_turns_alike, part),
        )
        for part in SECTION6[preset]
    ]
