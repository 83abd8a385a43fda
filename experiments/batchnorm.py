"""A.2.2: without batch-norm, Layca sometimes cannot rotate all layers far and together.

No figure in the paper. The eleven-layer MLP on MNIST-5k with and without batch-norm, with Layca; in both
presets (the paper names no task).
"""

import numpy as np
from matplotlib.figure import Figure

from experiments.claims import Claim, Finding
from experiments.curves import draw_rotation, final_rotation, layer_bar, panels, unevenness
from experiments.presets import Part
from experiments.results import Results
from experiments.runs import Training

LOG = "batchnorm"
PARTS = (Part("mnist5k-mlp", (0, 1, 2)), Part("mnist5k-mlp-no-norm", (0, 1, 2)))


def runs(preset: str) -> list[Training]:
    del preset
    return [run for part in PARTS for run in part.runs()]


def draw(preset: str, results: Results) -> Figure:
    del preset
    figure, axes = panels(1, 2)
    for axis, part, title in zip(axes[0], PARTS, ("with batch-norm", "without"), strict=True):
        draw_rotation(axis, results.of(part.runs()[0]))
        axis.set(title=f"Layca {title}", xlabel="epoch")
    axes[0, 0].set_ylabel("cosine distance")
    layer_bar(figure, axes)
    return figure


def norm_keeps_layers_together(results: Results) -> Finding:
    found = [[results.of(run) for run in part.runs()] for part in PARTS]
    far = [np.mean([final_rotation(run).mean() for run in side]) for side in found]
    uneven = [np.mean([unevenness(run) for run in side]) for side in found]
    accuracy = [results.spread(part.runs()) for part in PARTS]
    ours = (
        f"mean distance {far[0]:.2f} with and {far[1]:.2f} without, deviation over layers {uneven[0]:.2f} and"
        f" {uneven[1]:.2f} of the mean, accuracy {accuracy[0]} and {accuracy[1]}"
    )
    return ours, [far[0] > far[1], uneven[0] < uneven[1]]


def claims(preset: str) -> list[Claim]:
    del preset
    text = "Without batch-norm Layca turns layers less far and less together"
    return [Claim(text, "sometimes", norm_keeps_layers_together)]
