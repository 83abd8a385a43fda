"""Figure 1c: with other layers' gates frozen for each image, last layers generalise better than first ones.

As Figure 1a, but each ReLU except the trained layer's own lets pass, for every training and test image, what
it let pass at initialisation: so the trained layer cannot improve its feedback. Behind the last hidden layer
there is no such ReLU; there both figures meet.
"""

from functools import partial

from matplotlib.figure import Figure

from experiments.claims import Claim
from experiments.layers import draw_layers, near, rises
from experiments.results import Results
from experiments.toy import DATA, HIDDEN, SEEDS, UNTIL_LOSS, OneLayer

LOG = "fig1c"
PAPER = (0.464, 0.454, 0.451, 0.454, 0.458, 0.462, 0.487, 0.497, 0.514, 0.575)


def by_layer(preset: str) -> list[list[OneLayer]]:
    """The last layer's runs are Figure 1a's."""
    return [
        [OneLayer(DATA[preset], layer, seed, layer < HIDDEN - 1, UNTIL_LOSS[preset]) for seed in SEEDS]
        for layer in range(HIDDEN)
    ]


def runs(preset: str) -> list[OneLayer]:
    return [run for layer in by_layer(preset) for run in layer]


def draw(preset: str, results: Results) -> Figure:
    return draw_layers(by_layer(preset), PAPER, results)


def claims(preset: str) -> list[Claim]:
    listed = ", ".join(f"{value:.3f}"[1:] for value in PAPER)
    return [
        Claim("With frozen gates, last layers generalise better", listed, partial(rises, by_layer(preset))),
        Claim("… with the authors' accuracies", "within .03", partial(near, by_layer(preset), PAPER)),
    ]
