"""Figure 1a: which single layer would you train? The test accuracy falls with the depth of the trained layer.

Ten layers of 784 units and one of 10 (no batch-norm, Glorot uniform), 100 training images, SGD at 10 on the
whole batch, ten seeds. `laptop` takes its images from MNIST-5k and tests on its other 4,900; `paper` takes
MNIST.
"""

from functools import partial

from matplotlib.figure import Figure

from experiments.claims import Claim
from experiments.layers import draw_layers, falls, near
from experiments.results import Results
from experiments.toy import DATA, HIDDEN, SEEDS, UNTIL_LOSS, OneLayer

LOG = "fig1a"
PAPER = (0.745, 0.760, 0.750, 0.731, 0.706, 0.683, 0.657, 0.631, 0.605, 0.575)


def by_layer(preset: str) -> list[list[OneLayer]]:
    return [
        [OneLayer(DATA[preset], layer, seed, False, UNTIL_LOSS[preset]) for seed in SEEDS]
        for layer in range(HIDDEN)
    ]


def runs(preset: str) -> list[OneLayer]:
    return [run for layer in by_layer(preset) for run in layer]


def draw(preset: str, results: Results) -> Figure:
    return draw_layers(by_layer(preset), PAPER, results)


def claims(preset: str) -> list[Claim]:
    listed = ", ".join(f"{value:.3f}"[1:] for value in PAPER)
    return [
        Claim("Trained alone, first layers generalise better", listed, partial(falls, by_layer(preset))),
        Claim("… with the authors' accuracies", "within .03", partial(near, by_layer(preset), PAPER)),
    ]
