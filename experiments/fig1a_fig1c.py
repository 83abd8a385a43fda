"""Figures 1a and 1c: which single layer would you train?

Figure 1a: the test accuracy falls with the depth of the trained layer. The network has ten layers of 784
units and one of 10 (no batch-norm, Glorot uniform). It sees 100 training images, with SGD at 10 on the whole
batch and ten seeds. `laptop` takes its images from MNIST-5k and tests on its other 4,900, `paper` from MNIST.

Figure 1c: with other layers' gates frozen for each image, last layers generalise better than first ones. Each
ReLU except the trained layer's own lets pass, for every training and test image, what it let pass at
initialisation: so the trained layer cannot improve its feedback. Behind the last hidden layer there is no
such ReLU; there both figures meet.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from experiments.claims import Claim, Finding, slope
from experiments.curves import panels
from experiments.experiment import Experiment
from experiments.results import Results
from experiments.toy import DATA, HIDDEN, PRESETS, SEEDS, UNTIL_LOSS, OneLayer

# The authors' test accuracies by trained layer, with working and with frozen gates.
PAPER = {
    False: (0.745, 0.760, 0.750, 0.731, 0.706, 0.683, 0.657, 0.631, 0.605, 0.575),
    True: (0.464, 0.454, 0.451, 0.454, 0.458, 0.462, 0.487, 0.497, 0.514, 0.575),
}


def by_layer(preset: str, frozen: bool) -> list[list[OneLayer]]:
    """The runs of every seed by trained layer. Those of the last layer are the same in both figures."""
    return [
        [
            OneLayer(DATA[preset], layer, seed, frozen and layer < HIDDEN - 1, UNTIL_LOSS[preset])
            for seed in SEEDS
        ]
        for layer in range(HIDDEN)
    ]


def runs(frozen: bool, preset: str) -> list[OneLayer]:
    return [run for seeds in by_layer(preset, frozen) for run in seeds]


def draw(frozen: bool, preset: str, results: Results) -> Figure:
    found = np.array([results.accuracies(runs) for runs in by_layer(preset, frozen)])
    figure, ((axis,),) = panels(1, 1, size=(4.5, 3.2))
    layers = range(HIDDEN)
    axis.errorbar(layers, found.mean(axis=1), found.std(axis=1, ddof=1), marker="o", label="here")
    axis.plot(layers, PAPER[frozen], "k--", lw=1, label="paper")
    axis.set(xlabel="trained layer", ylabel="test accuracy", ylim=(0.4, 0.8), xticks=layers)
    axis.legend()
    return figure


def falls(preset: str, results: Results) -> Finding:
    """The first layer against the last, and the trend from the second on (where the paper's begins)."""
    found = results.paired(by_layer(preset, frozen=False))
    trend = -slope(found[1:], range(1, HIDDEN))
    return Finding(_listed(found), {"first − last": found[0] - found[-1], "fall per layer": trend})


def rises(preset: str, results: Results) -> Finding:
    """The last layer against the first, and the trend from the third on (where the paper's begins)."""
    found = results.paired(by_layer(preset, frozen=True))
    trend = slope(found[2:], range(2, HIDDEN))
    return Finding(_listed(found), {"last − first": found[-1] - found[0], "rise per layer": trend})


def near(frozen: bool, preset: str, results: Results) -> Finding:
    """Every layer on average within .03 of the paper; the layer that is farthest away decides."""
    apart = results.paired(by_layer(preset, frozen)) - np.array(PAPER[frozen])[:, None]
    means = apart.mean(axis=1)
    worst = np.argmax(np.abs(means))
    ours = f"within {np.abs(means[worst]):.3f}"
    return Finding(ours, {".03 − that": 0.03 - np.sign(means[worst]) * apart[worst]})


def _listed(found: np.ndarray) -> str:
    means = ", ".join(f"{mean:.3f}"[1:] for mean in found.mean(axis=1))
    deviation = found.std(axis=1, ddof=1)
    return f"{means} (± {f'{deviation.min():.3f}'[1:]} to {f'{deviation.max():.3f}'[1:]})"


def claims(frozen: bool, text: str, measure: Callable[[str, Results], Finding], preset: str) -> list[Claim]:
    listed = ", ".join(f"{value:.3f}"[1:] for value in PAPER[frozen])
    return [
        Claim(text, listed, partial(measure, preset)),
        Claim("… with the authors' accuracies", "within .03", partial(near, frozen, preset)),
    ]


FIG1A, FIG1C = (
    Experiment(
        name,
        log=name,
        runs=partial(runs, frozen),
        draw=partial(draw, frozen),
        claims=partial(claims, frozen, text, measure),
        presets=PRESETS,
    )
    for name, frozen, text, measure in (
        ("fig1a", False, "Trained alone, first layers generalise better", falls),
        ("fig1c", True, "With frozen gates, last layers generalise better", rises),
    )
)
