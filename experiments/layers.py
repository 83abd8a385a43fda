"""Test accuracy by trained layer, which Figures 1a and 1c show."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.claims import Finding
from experiments.curves import panels
from experiments.results import Results
from experiments.runs import Run

ByLayer = Sequence[Sequence[Run]]


def accuracies(by_layer: ByLayer, results: Results) -> np.ndarray:
    """Of shape `(layers, seeds)`."""
    return np.array([[results.of(run)["test_accuracy"] for run in runs] for runs in by_layer])


def draw_layers(by_layer: ByLayer, paper: Sequence[float], results: Results) -> Figure:
    found = accuracies(by_layer, results)
    figure, ((axis,),) = panels(1, 1, size=(4.5, 3.2))
    layers = range(len(by_layer))
    axis.errorbar(layers, found.mean(axis=1), found.std(axis=1, ddof=1), marker="o", label="here")
    axis.plot(layers, paper, "k--", lw=1, label="paper")
    axis.set(xlabel="trained layer", ylabel="test accuracy", ylim=(0.4, 0.8), xticks=layers)
    axis.grid(alpha=0.3)
    axis.legend()
    return figure


def falls(by_layer: ByLayer, results: Results) -> Finding:
    """Half of the trend is the first layer against the last, the other every layer from the second on."""
    means = accuracies(by_layer, results).mean(axis=1)
    return _listed(by_layer, results), [means[0] > means[-1], bool(np.all(np.diff(means[1:]) < 0))]


def rises(by_layer: ByLayer, results: Results) -> Finding:
    """The paper's own accuracies rise from the third layer on."""
    means = accuracies(by_layer, results).mean(axis=1)
    return _listed(by_layer, results), [means[0] < means[-1], bool(np.all(np.diff(means[2:]) > 0))]


def near(by_layer: ByLayer, paper: Sequence[float], results: Results) -> Finding:
    apart = np.abs(accuracies(by_layer, results).mean(axis=1) - paper)
    return f"within {apart.max():.3f}", list(apart <= 0.03)


def _listed(by_layer: ByLayer, results: Results) -> str:
    found = accuracies(by_layer, results)
    means = ", ".join(f"{mean:.3f}"[1:] for mean in found.mean(axis=1))
    deviation = found.std(axis=1, ddof=1)
    return f"{means} (± {f'{deviation.min():.3f}'[1:]} to {f'{deviation.max():.3f}'[1:]})"
