"""Section 6.2: the effective rates of adaptive methods differ mostly between layers, hardly inside of them.

The paper has no figure of this. A parameter's effective rate is the learning rate divided by the root of the
running mean of its squared gradients. The variance of its logarithm over all parameters is the variance of
the layers' means plus the variance inside of layers. Parameters whose gradient has always been 0 (border
pixels, which are always black) are left out, because they do not move.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from matplotlib.figure import Figure

from experiments.claims import Claim, Finding
from experiments.curves import titled_panels
from experiments.experiment import Experiment
from experiments.presets import NAMES, SECTION6, Setup
from experiments.results import Results, finite_seeds, spread
from experiments.runs import Training, rounded

METHODS = ("rmsprop", "adam")
SHARES = ("between_layers", "inside_layers")


@dataclass(frozen=True)
class Shares(Training):
    """A run that measures both variances after every epoch."""

    PROGRAM = "adaptivity"

    def execute(self, data_dir: str | None) -> dict[str, Any]:
        def look(state: Any) -> dict[str, float | None]:
            shares = variances(jax.device_get(optax.tree.get(state.opt_state, "nu")))
            return dict(zip(SHARES, map(rounded, shares), strict=True))

        records = self.records(data_dir, self.config.epochs, look=look)
        seen = {name: [record[name] for record in records] for name in SHARES}
        return {**self.summary(records, data_dir), **seen}


def variances(squares: Any) -> tuple[float, float]:
    """Returns the variance of -log10 of the roots of `squares` between layers and inside of them.

    Factors common to all parameters (learning rate, bias correction) cancel.
    """
    logs = [-0.5 * np.log10(leaf[leaf > 0].astype(np.float64)) for leaf in jax.tree.leaves(squares)]
    sizes = np.array([layer.size for layer in logs])
    means = np.array([layer.mean() for layer in logs])
    share = sizes / sizes.sum()
    between = np.sum(share * (means - np.sum(share * means)) ** 2)
    return float(between), float(np.sum(share * [layer.var() for layer in logs]))


def method(setup: Setup, optimizer: str) -> list[Training]:
    return [Shares(run.config) for run in setup.runs(optimizer=optimizer, layca=False)]


def runs(preset: str) -> list[Training]:
    return [run for setup in SECTION6[preset] for optimizer in METHODS for run in method(setup, optimizer)]


def shares(runs: list[Training], results: Results) -> np.ndarray:
    """Returns the share of the variance between layers, `(seeds, epochs)`; NaN after a run diverged."""
    lines = [results.of(run) for run in runs]
    epochs = min(len(line["between_layers"]) for line in lines)
    between, inside = (np.array([line[name][:epochs] for line in lines], float) for name in SHARES)
    return between / (between + inside)


def draw(preset: str, results: Results) -> Figure:
    setups = SECTION6[preset]
    settings = {"xlabel": "epoch", "ylim": (0, 1)}
    figure, axes = titled_panels([setup.task for setup in setups], "share between layers", **settings)
    for axis, setup in zip(axes, setups, strict=True):
        for optimizer in METHODS:
            found = shares(method(setup, optimizer), results)
            axis.plot(np.arange(found.shape[1]) + 1, found.mean(axis=0), label=NAMES[optimizer])
    axes[0].legend()
    return figure


def mostly_between(setup: Setup, optimizer: str, results: Results) -> Finding:
    runs = method(setup, optimizer)
    found = finite_seeds(shares(list(filter(results.has, runs)) or runs, results))
    ours = f"{spread(found[:, 0])} after one epoch, {spread(found[:, -1])} at the end; over training"
    mean = found.mean(axis=1)
    return Finding(ours, {"share − .5": mean - 0.5, "share − .9": mean - 0.9})


def claims(preset: str) -> list[Claim]:
    return [
        Claim(
            f"{NAMES[optimizer]}'s rates differ between layers, not inside (share of variance)",
            '"mostly" between, "negligibly" inside',
            partial(mostly_between, setup, optimizer),
            setup.task,
        )
        for setup in SECTION6[preset]
        for optimizer in METHODS
    ]


ADAPTIVITY = Experiment("adaptivity", log="adaptivity", runs=runs, draw=draw, claims=claims)
