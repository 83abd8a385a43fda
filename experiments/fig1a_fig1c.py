"""Figures 1a and 1c: the test accuracy if a single layer is trained, by the depth of that layer.

Figure 1a: test accuracy falls with depth. The network has ten layers of 784 units and one of 10 (no
batch-norm, Glorot uniform). It trains on 100 images by SGD at a rate of 10, with the whole batch and ten
seeds. `laptop` takes these images from MNIST-5k and tests on its other 4,900; `paper` takes them from MNIST.

Figure 1c: last layers generalise better than first ones if the gates of the other layers are frozen. For each
image, every ReLU except the trained layer's own lets pass what it let pass at initialisation, so training
cannot improve the layer's feedback. No such ReLU follows the last hidden layer: there both figures meet.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from experiments.claims import Claim, Finding, slope
from experiments.curves import panel
from experiments.experiment import Experiment
from experiments.results import Results
from experiments.toy import DATA, HIDDEN, PRESETS, SEEDS, UNTIL_LOSS, OneLayer

# The authors' test accuracies by trained layer, with working and with frozen gates.
PAPER = {
    False: (0.745, 0.760, 0.750, 0.731, 0.706, 0.683, 0.657, 0.631, 0.605, 0.575),
    True: (0.464, 0.454, 0.451, 0.454, 0.458, 0.462, 0.487, 0.497, 0.514, 0.575),
}


def by_layer(preset: str, frozen: bool) -> list[list[OneLayer]]:
    """Returns the runs of every seed by trained layer; both figures share those of the last layer."""
    data, until_loss = DATA[preset], UNTIL_LOSS[preset]
    return [
        [OneLayer(data, layer, seed, frozen and layer < HIDDEN - 1, until_loss) for seed in SEEDS]
        for layer in range(HIDDEN)
    ]


def runs(frozen: bool, preset: str) -> list[OneLayer]:
    return [run for seeds in by_layer(preset, frozen) for run in seeds]


def draw(frozen: bool, preset: str, results: Results) -> Figure:
    found = np.array([results.accuracies(runs) for runs in by_layer(preset, frozen)])
    figure, axis = panel()
    layers = range(HIDDEN)
    axis.errorbar(layers, found.mean(axis=1), found.std(axis=1, ddof=1), marker="o", label="here")
    axis.plot(layers, PAPER[frozen], "k--", lw=1, label="paper")
    axis.set(xlabel="trained layer", ylabel="test accuracy", ylim=(0.4, 0.8), xticks=layers)
    axis.legend()
    return figure


def falls(preset: str, results: Results) -> Finding:
    """Compares the first layer with the last, and fits a line from the second on, as in the paper."""
    found = results.paired(by_layer(preset, frozen=False))
    trend = -slope(found[1:], range(1, HIDDEN))
    return Finding(_listed(found), {"first − last": found[0] - found[-1], "fall per layer": trend})


def rises(preset: str, results: Results) -> Finding:
    """Compares the last layer with the first, and fits a line from the third on, as in the paper."""
    found = results.paired(by_layer(preset, frozen=True))
    trend = slope(found[2:], range(2, HIDDEN))
    return Finding(_listed(found), {"last − first": found[-1] - found[0], "rise per layer": trend})


def near(frozen: bool, preset: str, results: Results) -> Finding:
    """Compares the layer whose mean is farthest from the paper's with a tolerance of .03."""
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
        Claim(
            "Accuracies are the authors'",
            "within .03",
            partial(near, frozen, preset),
            "with frozen gates" if frozen else "trained alone",
        ),
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
