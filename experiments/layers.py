"""Test accuracy by trained layer, which Figures 1a and 1c show."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.claims import Finding, slope
from experiments.curves import panels
from experiments.results import Results
from experiments.runs import Run

ByLayer = Sequence[Sequence[Run]]


def draw_layers(by_layer: ByLayer, paper: Sequence[float], results: Results) -> Figure:
    found = np.array([results.accuracies(runs) for runs in by_layer])
    figure, ((axis,),) = panels(1, 1, size=(4.5, 3.2))
    layers = range(len(by_layer))
    axis.errorbar(layers, found.mean(axis=1), found.std(axis=1, ddof=1), marker="o", label="here")
    axis.plot(layers, paper, "k--", lw=1, label="paper")
    axis.set(xlabel="trained layer", ylabel="test accuracy", ylim=(0.4, 0.8), xticks=layers)
    axis.grid(alpha=0.3)
    axis.legend()
    return figure


def falls(by_layer: ByLayer, results: Results) -> Finding:
    """The first layer against the last, and the trend from the second on (where the paper's begins)."""
    found = results.paired(by_layer)
    trend = -slope(found[1:], range(1, len(found)))
    return Finding(_listed(found), {"first − last": found[0] - found[-1], "fall per layer": trend})


def rises(by_layer: ByLayer, results: Results) -> Finding:
    """The last layer against the first, and the trend from the third on (where the paper's begins)."""
    found = results.paired(by_layer)
    trend = slope(found[2:], range(2, len(found)))
    return Finding(_listed(found), {"last − first": found[-1] - found[0], "rise per layer": trend})


def near(by_layer: ByLayer, paper: Sequence[float], results: Results) -> Finding:
    """Every layer on average within .03 of the paper."""
    apart = results.paired(by_layer) - np.array(paper)[:, None]
    means = np.abs(apart.mean(axis=1))
    # The layer that is farthest away decides.
    sign, worst = np.sign(apart.mean(axis=1)[np.argmax(means)]), np.argmax(means)
    return Finding(f"within {means.max():.3f}", {".03 − that": 0.03 - sign * apart[worst]})


def _listed(found: np.ndarray) -> str:
    means = ", ".join(f"{mean:.3f}"[1:] for mean in found.mean(axis=1))
    deviation = found.std(axis=1, ddof=1)
    return f"{means} (± {f'{deviation.min():.3f}'[1:]} to {f'{deviation.max():.3f}'[1:]})"
