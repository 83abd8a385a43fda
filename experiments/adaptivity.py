"""Section 6.2: the rates of adaptive methods differ mostly between layers, hardly inside of them.

No figure in the paper. A parameter's effective rate is the learning rate over the root of its running mean of
squared gradients; the variance of its logarithm over all parameters is the variance between layers' means
plus that inside of layers. Parameters whose gradient has always been 0 (border pixels, which are always
black) are left out: they do not move.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from matplotlib.figure import Figure

from experiments.claims import Claim, Finding
from experiments.curves import panels
from experiments.experiment import Experiment
from experiments.presets import NAMES, SECTION6, Part
from experiments.results import Results, spread, without_lost
from experiments.runs import Training, rounded

METHODS = ("rmsprop", "adam")
SHARES = ("between_layers", "inside_layers")


@dataclass(frozen=True)
class Shares(Training):
    """A run that looks at its effective rates after every epoch."""

    PROGRAM = "adaptivity"

    def execute(self, data_dir: str | None) -> dict[str, Any]:
        def look(state: Any) -> dict[str, float | None]:
            parts = variances(jax.device_get(optax.tree.get(state.opt_state, "nu")))
            return dict(zip(SHARES, map(rounded, parts), strict=True))

        records = self.records(data_dir, self.config.epochs, look=look)
        seen = {name: [record[name] for record in records] for name in SHARES}
        return {**self.summary(records, data_dir), **seen}


def variances(squares: Any) -> tuple[float, float]:
    """The variance of -log10 of the roots of `squares` between layers and inside of them.

    Factors common to all parameters (learning rate, bias correction) do not count.
    """
    logs = [-0.5 * np.log10(leaf[leaf > 0].astype(np.float64)) for leaf in jax.tree.leaves(squares)]
    sizes = np.array([layer.size for layer in logs])
    means = np.array([layer.mean() for layer in logs])
    share = sizes / sizes.sum()
    between = np.sum(share * (means - np.sum(share * means)) ** 2)
    return float(between), float(np.sum(share * [layer.var() for layer in logs]))


def method(part: Part, optimizer: str) -> list[Training]:
    return [Shares(run.config) for run in part.runs(optimizer=optimizer, layca=False)]


def runs(preset: str) -> list[Training]:
    return [run for part in SECTION6[preset] for optimizer in METHODS for run in method(part, optimizer)]


def shares(runs: list[Training], results: Results) -> np.ndarray:
    """The part of the variance that lies between layers, `(seeds, epochs)`; NaN where a run was lost."""
    lines = [results.of(run) for run in runs]
    epochs = min(len(line["between_layers"]) for line in lines)
    between, inside = (np.array([line[name][:epochs] for line in lines], float) for name in SHARES)
    return between / (between + inside)


def draw(preset: str, results: Results) -> Figure:
    parts = SECTION6[preset]
    figure, axes = panels(1, len(parts))
    for axis, part in zip(axes[0], parts, strict=True):
        for optimizer in METHODS:
            found = shares(method(part, optimizer), results)
            axis.plot(np.arange(found.shape[1]) + 1, found.mean(axis=0), label=NAMES[optimizer])
        axis.set(title=part.task, xlabel="epoch", ylim=(0, 1))
    axes[0, 0].set_ylabel("share between layers")
    axes[0, 0].legend()
    return figure


def mostly_between(part: Part, optimizer: str, results: Results) -> Finding:
    runs = method(part, optimizer)
    found = without_lost(shares(list(filter(results.has, runs)) or runs, results))
    ours = f"{spread(found[:, 0])} after one epoch, {spread(found[:, -1])} at the end; over training"
    mean = found.mean(axis=1)
    return Finding(ours, {"share − .5": mean - 0.5, "share − .9": mean - 0.9})


def claims(preset: str) -> list[Claim]:
    return [
        Claim(
            f"{NAMES[optimizer]}'s rates differ between layers, not inside (share of variance): {part.task}",
            '"mostly" between, "negligibly" inside',
            partial(mostly_between, part, optimizer),
        )
        for part in SECTION6[preset]
        for optimizer in METHODS
    ]


ADAPTIVITY = Experiment("adaptivity", log="adaptivity", runs=runs, draw=draw, claims=claims)
