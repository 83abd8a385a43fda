"""Figure 2: test accuracy against alpha: first layers train faster (alpha < 0) or last layers do (> 0).

SGD has one learning rate per task, the best for alpha = 0 (Figure 7); Layca has 3^-3 everywhere. Only runs
with at least 98 % training accuracy are drawn.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.claims import Claim, Finding, by_task
from experiments.curves import panels
from experiments.experiment import Experiment
from experiments.presets import SECTION5, Part
from experiments.results import MissingRunError, Results, spread, without_lost
from experiments.runs import Training

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


def with_alphas(preset: str) -> list[Part]:
    """The tasks that have other alphas than 0."""
    return [part for part in SECTION5[preset] if len(part.alphas) > 1]


def trained(line: Mapping[str, Any]) -> float | None:
    """The test accuracy of a run that reached 98 % on the training images."""
    return line["test_accuracy"] if (line["curves"]["train_accuracy"][-1] or 0) >= TRAINED else None


def grid(part: Part, layca: bool, results: Results) -> np.ndarray:
    """Test accuracies of shape `(alphas, seeds)`; NaN where a run is missing or stays under 98 %."""
    table = [part.runs(alpha=alpha, layca=layca) for alpha in part.alphas]
    values = [[trained(results.of(run)) if results.has(run) else None for run in runs] for runs in table]
    if not any(results.has(run) for runs in table for run in runs):
        raise MissingRunError(f"no run of {part.task} is logged")
    return np.array(values, float)


def untrained(part: Part, results: Results) -> str:
    """How many runs stay under 98 %."""
    runs = [run for layca in STYLES for alpha in part.alphas for run in part.runs(alpha=alpha, layca=layca)]
    lines = [results.of(run) for run in runs if results.has(run)]
    under = [line["curves"]["train_accuracy"][-1] for line in lines if trained(line) is None]
    if not under:
        return ""
    lowest = min(accuracy or 0.0 for accuracy in under)
    return f"; {len(under)} of {len(lines)} runs stay under 98 %, at {lowest:.2f} or more"


def draw(preset: str, results: Results) -> Figure:
    parts = with_alphas(preset)
    figure, axes = panels(1, len(parts))
    for axis, part in zip(axes[0], parts, strict=True):
        for layca, (label, color, marker) in STYLES.items():
            for alpha in part.alphas:
                results.of(part.runs(alpha=alpha, layca=layca)[-1])
            found = grid(part, layca, results)
            drawn = np.isfinite(found).any(axis=1)
            means, deviations = np.nanmean(found[drawn], axis=1), np.nanstd(found[drawn], axis=1)
            alphas = np.array(part.alphas)[drawn]
            axis.errorbar(alphas, means, deviations, color=color, marker=marker, ms=4, label=label)
        axis.set(title=part.task, xlabel="α")
    axes[0, 0].set_ylabel("test accuracy")
    axes[0, 0].legend()
    return figure


def uniform_is_best(part: Part, results: Results) -> Finding:
    """Against one alpha on each side, and against the best of all others, whichever it is."""
    found, middle = grid(part, True, results), part.alphas.index(0.0)
    pairs = {alpha: _paired(found[middle], row) for alpha, row in zip(part.alphas, found, strict=True)}
    means = {alpha: values.mean() for alpha, values in pairs.items() if alpha and len(values)}
    if not means:
        return Finding("no pair reaches 98 %" + untrained(part, results), {})
    best = min(means, key=means.__getitem__)
    compared = dict.fromkeys([-0.4, 0.4, best])
    parts = {f"0 − ({alpha:g})": pairs[alpha] for alpha in compared if len(pairs[alpha])}
    return Finding(f"best of the others: {best:g}{untrained(part, results)}", parts)


def _paired(better: np.ndarray, worse: np.ndarray) -> np.ndarray:
    return (better - worse)[np.isfinite(better - worse)]


def first_layers_beat_last(part: Part, results: Results) -> Finding:
    found = dict(zip(part.alphas, grid(part, True, results), strict=True))
    parts = {
        f"at {alpha:g}": _paired(found[-alpha], found[alpha])
        for alpha in (0.2, 0.4, 0.6, 0.8)
        if alpha in found
    }
    return Finding(
        "difference of test accuracies", {name: values for name, values in parts.items() if len(values)}
    )


def layca_beats_sgd(part: Part, results: Results) -> Finding:
    layca, sgd = results.paired([part.runs(layca=layca) for layca in (True, False)])
    return Finding(f"{spread(layca)} against {spread(sgd)}", {"difference": layca - sgd})


def ranges(part: Part, results: Results) -> list[np.ndarray]:
    """With Layca and with SGD: by seed, the range of accuracies over alphas, of seeds with all their runs."""
    table = [part.runs(alpha=alpha, layca=layca) for layca in STYLES for alpha in part.alphas]
    lines = results.lines(table)
    found = np.array([[trained(line) for line in seed] for seed in lines], float)
    # Runs that were not trained leave the range of the others.
    low, high = (np.where(np.isnan(found), end, found) for end in (np.inf, -np.inf))
    sides = [np.split(bound, 2, axis=1) for bound in (low, high)]
    found = np.stack([top.max(axis=1) - bottom.min(axis=1) for bottom, top in zip(*sides, strict=True)], 1)
    return list(without_lost(found).T)


def layca_covers_more(part: Part, results: Results) -> Finding:
    layca, sgd = ranges(part, results)
    return Finding(f"{spread(layca)} against {spread(sgd)}", {"difference": layca - sgd})


def thirty_points(part: Part, results: Results) -> Finding:
    layca, _ = ranges(part, results)
    return Finding(f"range {spread(layca)} over {len(part.alphas)} values of α", {"range − .3": layca - 0.3})


def consistent(preset: str, results: Results) -> Finding:
    """By seed, how far apart the best alphas of the tasks are: with SGD further than with Layca."""
    curves = [(layca, part) for layca in STYLES for part in with_alphas(preset)]
    table = [part.runs(alpha=alpha, layca=layca) for layca, part in curves for alpha in part.alphas]
    by_run = iter(zip(*results.lines(table), strict=True))
    best = []
    for _, part in curves:
        values = np.array([[trained(line) or 0.0 for line in next(by_run)] for _ in part.alphas])
        best.append(np.array(part.alphas)[values.argmax(axis=0)])
    layca, sgd = (np.ptp(side, axis=0) for side in np.split(np.array(best), 2))
    ours = f"best α of the tasks apart by {layca.mean():.2f} with Layca, {sgd.mean():.2f} with SGD"
    return Finding(ours, {"difference": sgd - layca})


def claims(preset: str) -> list[Claim]:
    parts, ranges = with_alphas(preset), ".376, .236, .306"
    best = "With Layca, uniform rotation (α = 0) generalises best"
    first = "Layca: faster first layers (−α) beat faster last layers (+α)"
    better = "At α = 0 Layca generalises better than SGD"
    covers = "Layca covers a larger range of accuracies than SGD (5.3)"
    changes = "Which layers are trained first changes test accuracy by up to 30 points (abstract)"
    same = "The best α is the same for all tasks with Layca, not with SGD (5.3)"
    by_alpha = "c10-cnn1: −3.6, +0.1, +13.1, +28.0 at 0.2, 0.4, 0.6, 0.8"
    return [
        *by_task(parts, best, "best at 0, 0, 0.1", uniform_is_best),
        *by_task(parts, first, by_alpha, first_layers_beat_last),
        *by_task(SECTION5[preset], better, "+8.9, +11.1, +7.8 points", layca_beats_sgd),
        *by_task(parts, covers, f"{ranges} against .178, .086, .300", layca_covers_more),
        *by_task(parts, changes, ranges, thirty_points),
        Claim(same, "0, 0, 0.1 against 0.2, 0.1 and 0.2, 0", partial(consistent, preset)),
    ]


FIG2 = Experiment("fig2", log="fig2", runs=runs, draw=draw, claims=claims)
