"""Figure 5b: with weight decay SGD turns layers far and together; without it does not, and generalises worse.

The paper's network is that of Section 6.2 with Keras' L2 of 5e-4 for 250 epochs. Runs of the laptop preset
are so short that the VGG needs 1e-2 to turn much further. With that the MLP, at three times the learning
rate, hardly learns (`python train.py --no-layca --weight-decay 0.01`); it has 1e-3.
"""

from functools import partial

import numpy as np
from matplotlib.figure import Figure

from experiments.claims import Claim, Finding, clearly
from experiments.curves import draw_rotation, final_rotation, layer_bar, panels, unevenness
from experiments.presets import SECTION6, Part
from experiments.results import Results, spread
from experiments.runs import Training

LOG = "fig5b"
WEIGHT_DECAY = {"mnist5k-mlp": 1e-3, "mnist5k-vgg": 1e-2, "cifar16-wilson": 5e-4, "c10-cnn2": 5e-4}


def sides(part: Part) -> list[list[Training]]:
    """With weight decay, and without."""
    return [part.runs(layca=False, weight_decay=decay) for decay in (WEIGHT_DECAY[part.task], 0.0)]


def runs(preset: str) -> list[Training]:
    return [run for part in SECTION6[preset] for side in sides(part) for run in side]


def draw(preset: str, results: Results) -> Figure:
    parts = SECTION6[preset]
    figure, axes = panels(len(parts), 2)
    for row, part in zip(axes, parts, strict=True):
        for axis, side, title in zip(row, sides(part), ("with L2", "without"), strict=True):
            draw_rotation(axis, results.of(side[0]))
            axis.set(title=f"{part.task}, SGD {title}", xlabel="epoch")
        row[0].set_ylabel("cosine distance")
    layer_bar(figure, axes)
    return figure


def decay_rotates(part: Part, results: Results) -> Finding:
    found = [[results.of(run) for run in side] for side in sides(part)]
    accuracy = [[run["test_accuracy"] for run in side] for side in found]
    far = [np.mean([final_rotation(run).mean() for run in side]) for side in found]
    uneven = [np.mean([unevenness(run) for run in side]) for side in found]
    ours = (
        f"{spread(accuracy[0])} against {spread(accuracy[1])}; mean distance {far[0]:.2f} against"
        f" {far[1]:.2f}, deviation over layers {uneven[0]:.2f} against {uneven[1]:.2f} of the mean"
    )
    return ours, [far[0] > far[1], uneven[0] < uneven[1], clearly(*accuracy)]


def claims(preset: str) -> list[Claim]:
    return [
        Claim(
            f"With L2, SGD turns layers far and together and generalises better: {part.task}",
            ".926 against .874",
            partial(decay_rotates, part),
        )
        for part in SECTION6[preset]
    ]
