"""Figure 2: test accuracy against alpha: first layers train faster (alpha < 0) or last layers do (> 0).

SGD has one learning rate a task, the best for alpha = 0 (Figure 7); Layca has 3^-3 everywhere. Only runs with
at least 98 % training accuracy are drawn.
"""

from functools import partial

import numpy as np
from matplotlib.figure import Figure

from experiments.claims import Claim, Finding, clearly, points
from experiments.curves import panels
from experiments.presets import SECTION5, Part
from experiments.results import Results, spread
from experiments.runs import Training

LOG = "fig2"
TRAINED = 0.98
STYLES = {True: ("Layca", "C0", "o"), False: ("SGD", "C1", "s")}


def runs(preset: str) -> list[Training]:
    return [
        run
        for part in SECTION5[preset]
        for layca in (True, False)
        # The middle first: an unfinished log then holds what matters most.
        for alpha in sorted(part.alphas, key=abs)
        for run in part.runs(alpha=alpha, layca=layca)
    ]


def accuracies(part: Part, layca: bool, alpha: float, results: Results) -> list[float]:
    """Test accuracies of the seeds that reached 98 % on the training images."""
    found = [results.of(run) for run in part.runs(alpha=alpha, layca=layca)]
    return [run["test_accuracy"] for run in found if run["curves"]["train_accuracy"][-1] >= TRAINED]


def draw(preset: str, results: Results) -> Figure:
    figure, axes = panels(1, len(SECTION5[preset]))
    for axis, part in zip(axes[0], SECTION5[preset], strict=True):
        for layca, (label, color, marker) in STYLES.items():
            found = {alpha: accuracies(part, layca, alpha, results) for alpha in part.alphas}
            drawn = [alpha for alpha in part.alphas if found[alpha]]
            means = [np.mean(found[alpha]) for alpha in drawn]
            axis.errorbar(
                drawn,
                means,
                [np.std(found[alpha]) for alpha in drawn],
                color=color,
                marker=marker,
                ms=4,
                label=label,
            )
        axis.set(title=part.task, xlabel="α")
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("test accuracy")
    axes[0, 0].legend()
    return figure


def uniform_is_best(part: Part, results: Results) -> Finding:
    found = {alpha: accuracies(part, True, alpha, results) for alpha in part.alphas}
    means = {alpha: np.mean(values) for alpha, values in found.items() if values}
    if 0.0 not in means:
        return "α = 0 stays under 98 % training accuracy", [False]
    best = max(means, key=means.__getitem__)
    ours = f"best at {best:g} ({means[best]:.3f}); at 0 {spread(found[0.0])}"
    return ours, [best == 0, not clearly(found[best], found[0.0])]


def first_layers_beat_last(part: Part, results: Results) -> Finding:
    differences, held = {}, []
    for alpha in (alpha for alpha in (0.2, 0.4, 0.6, 0.8) if alpha in part.alphas):
        first, last = (accuracies(part, True, signed, results) for signed in (-alpha, alpha))
        if first and last:
            differences[alpha] = float(np.mean(first) - np.mean(last))
            held.append(clearly(first, last))
    ours = ", ".join(f"{points(value)} at {alpha}" for alpha, value in differences.items())
    return ours or "no pair reaches 98 %", held or [False]


def layca_beats_sgd(part: Part, results: Results) -> Finding:
    layca, sgd = (results.accuracies(part.runs(layca=layca)) for layca in (True, False))
    difference = float(np.mean(layca) - np.mean(sgd))
    ours = f"{spread(layca)} against {spread(sgd)} ({points(difference)})"
    return ours, [clearly(layca, sgd)]


CLAIMS = {
    "With Layca, uniform rotation (α = 0) generalises best": ("best at 0, 0, 0.1", uniform_is_best),
    "Layca: faster first layers (−α) beat faster last layers (+α)": (
        "c10-cnn1: −3.6, +0.1, +13.1, +28.0 at 0.2, 0.4, 0.6, 0.8",
        first_layers_beat_last,
    ),
    "At α = 0 Layca generalises better than SGD": ("+8.9, +11.1, +7.8 points", layca_beats_sgd),
}


def claims(preset: str) -> list[Claim]:
    return [
        Claim(f"{text}: {part.task}", paper, partial(measure, part))
        for text, (paper, measure) in CLAIMS.items()
        for part in SECTION5[preset]
    ]
