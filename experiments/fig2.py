"""Figure 2: test accuracy by alpha; first layers train faster if alpha < 0, last layers if alpha > 0.

SGD has one learning rate per task, the best for alpha = 0 (Figure 7); Layca always has 3^-3. Only runs that
reach 98 % training accuracy are drawn.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.claims import Claim, Finding, by_task
from experiments.curves import STYLES, titled_panels
from experiments.experiment import Experiment
from experiments.presets import SECTION5, Setup
from experiments.results import MissingRunError, Results, finite_seeds, spread
from experiments.runs import Training

TRAINED, NO_PAIR = 0.98, "no pair reaches 98 %"
# Where SGD's rate of Figure 7 is not the best on test images, the power of 3 that is.
BEST_ON_TEST = {"cifar16-vgg10": -1}


def runs(preset: str) -> list[Training]:
    others = [run for setup in SECTION5[preset] for run in sgd_at_best_on_test(setup)]
    return others + [
        run
        for setup in SECTION5[preset]
        for layca in STYLES
        # alpha = 0 first, so that an unfinished log has what matters most.
        for alpha in sorted(setup.alphas, key=abs)
        for run in setup.runs(alpha=alpha, layca=layca)
    ]


def sgd_at_best_on_test(setup: Setup) -> list[Training]:
    """Returns one run per seed at alpha = 0, or none if Figure 7 chooses that rate."""
    power = BEST_ON_TEST.get(setup.task)
    return [] if power is None else setup.runs(layca=False, learning_rate=3.0**power)


def with_alphas(preset: str) -> list[Setup]:
    """Returns the setups that have other alphas than 0."""
    return [setup for setup in SECTION5[preset] if len(setup.alphas) > 1]


def sweep(setup: Setup, layca: bool) -> list[list[Training]]:
    """Returns the runs of every seed by alpha."""
    return [setup.runs(alpha=alpha, layca=layca) for alpha in setup.alphas]


def trained(line: Mapping[str, Any]) -> float | None:
    """Returns the test accuracy of a run that reached 98 % training accuracy, else `None`."""
    return line["test_accuracy"] if (line["curves"]["train_accuracy"][-1] or 0) >= TRAINED else None


def grid(setup: Setup, layca: bool, results: Results) -> np.ndarray:
    """Returns test accuracies of shape `(alphas, seeds)`; NaN for runs that are missing or under 98 %.

    Raises:
      MissingRunError: no seed is logged at one of the alphas, so the best of them is not known.
    """
    table = sweep(setup, layca)
    values = [[trained(results.of(run)) if results.has(run) else None for run in runs] for runs in table]
    for alpha, runs in zip(setup.alphas, table, strict=True):
        if not any(map(results.has, runs)):
            raise MissingRunError(f"no run of {setup.task} at alpha {alpha:g} is logged")
    return np.array(values, float)


def untrained(setup: Setup, results: Results) -> str:
    """Says how many runs stay under 98 %."""
    runs = [run for layca in STYLES for seeds in sweep(setup, layca) for run in seeds]
    lines = [results.of(run) for run in runs if results.has(run)]
    under = [line["curves"]["train_accuracy"][-1] for line in lines if trained(line) is None]
    if not under:
        return ""
    lowest = min(accuracy or 0.0 for accuracy in under)
    return f"; {len(under)} of {len(lines)} runs stay under 98 %, at {lowest:.2f} or more"


def draw(preset: str, results: Results) -> Figure:
    setups = with_alphas(preset)
    figure, axes = titled_panels([setup.task for setup in setups], "test accuracy", xlabel="α")
    for axis, setup in zip(axes, setups, strict=True):
        for layca, (label, color, marker) in STYLES.items():
            for seeds in sweep(setup, layca):
                results.of(seeds[-1])  # names a missing run
            found = grid(setup, layca, results)
            drawn = np.isfinite(found).any(axis=1)
            means, deviations = np.nanmean(found[drawn], axis=1), np.nanstd(found[drawn], axis=1)
            alphas = np.array(setup.alphas)[drawn]
            axis.errorbar(alphas, means, deviations, color=color, marker=marker, ms=4, label=label)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def uniform_is_best(setup: Setup, results: Results) -> Finding:
    """Compares alpha = 0 with one alpha on each side, and with the best of all others."""
    found, middle = grid(setup, True, results), setup.alphas.index(0.0)
    pairs = {alpha: _paired(found[middle], row) for alpha, row in zip(setup.alphas, found, strict=True)}
    means = {alpha: values.mean() for alpha, values in pairs.items() if alpha and len(values)}
    if not means:
        return Finding(NO_PAIR + untrained(setup, results), {})
    best = min(means, key=means.__getitem__)
    compared = dict.fromkeys([-0.4, 0.4, best])
    margins = {f"0 − ({alpha:g})": pairs[alpha] for alpha in compared if len(pairs[alpha])}
    return Finding(f"best of the others: {best:g}{untrained(setup, results)}", margins)


def first_layers_beat_last(setup: Setup, results: Results) -> Finding:
    found = dict(zip(setup.alphas, grid(setup, True, results), strict=True))
    sizes = [alpha for alpha in (0.2, 0.4, 0.6, 0.8) if alpha in found]
    margins = {f"at {alpha:g}": _paired(found[-alpha], found[alpha]) for alpha in sizes}
    margins = {name: values for name, values in margins.items() if len(values)}
    ours = "difference of test accuracies" if margins else NO_PAIR + untrained(setup, results)
    return Finding(ours, margins)


def _paired(better: np.ndarray, worse: np.ndarray) -> np.ndarray:
    return (better - worse)[np.isfinite(better - worse)]


def layca_beats_sgd(setup: Setup, results: Results) -> Finding:
    return _layca_beats(setup, setup.runs(layca=False), results)


def layca_beats_sgd_at_best_on_test(setup: Setup, results: Results) -> Finding:
    return _layca_beats(setup, sgd_at_best_on_test(setup), results)


def _layca_beats(setup: Setup, others: list[Training], results: Results) -> Finding:
    layca, sgd = results.paired([setup.runs(), others])
    return Finding(f"{spread(layca)} against {spread(sgd)}", {"difference": layca - sgd})


def ranges(setup: Setup, results: Results) -> list[np.ndarray]:
    """Returns, with Layca and with SGD, each seed's range of accuracies over alphas.

    Seeds with missing runs are left out. Runs under 98 % training accuracy do not count.
    """
    lines = results.lines([seeds for layca in STYLES for seeds in sweep(setup, layca)])
    found = np.array([[trained(line) for line in seed] for seed in lines], float)
    # Of shape (seeds, sides, alphas).
    found = found.reshape(len(lines), 2, -1)
    low, high = (np.where(np.isnan(found), end, found) for end in (np.inf, -np.inf))
    return list(finite_seeds(high.max(axis=-1) - low.min(axis=-1)).T)


def layca_covers_more(setup: Setup, results: Results) -> Finding:
    layca, sgd = ranges(setup, results)
    return Finding(f"{spread(layca)} against {spread(sgd)}", {"difference": layca - sgd})


def thirty_points(setup: Setup, results: Results) -> Finding:
    layca, _ = ranges(setup, results)
    ours = f"range {spread(layca)} over {len(setup.alphas)} values of α"
    return Finding(ours, {"range − .3": layca - 0.3})


def consistent(preset: str, results: Results) -> Finding:
    """Compares, per seed, how far apart the best alphas of the tasks are with SGD and with Layca."""
    curves = [(layca, setup) for layca in STYLES for setup in with_alphas(preset)]
    table = [seeds for layca, setup in curves for seeds in sweep(setup, layca)]
    found = np.array([[trained(line) or 0.0 for line in seed] for seed in results.lines(table)]).T
    ends = np.cumsum([len(setup.alphas) for _, setup in curves])
    best = [
        np.array(setup.alphas)[accuracies.argmax(axis=0)]
        for (_, setup), accuracies in zip(curves, np.split(found, ends[:-1]), strict=True)
    ]
    layca, sgd = (np.ptp(side, axis=0) for side in np.split(np.array(best), 2))
    ours = f"best α of the tasks apart by {layca.mean():.2f} with Layca, {sgd.mean():.2f} with SGD"
    return Finding(ours, {"difference": sgd - layca})


def claims(preset: str) -> list[Claim]:
    setups, ranges = with_alphas(preset), ".376, .236, .306"
    uniform = "With Layca, uniform rotation (α = 0) generalises best"
    first = "Layca: faster first layers (−α) beat faster last layers (+α)"
    better = "At α = 0 Layca generalises better than SGD"
    best = "At α = 0 Layca generalises better than SGD at its best rate on test images"
    covers = "Layca covers a larger range of accuracies than SGD (5.3)"
    changes = "Which layers are trained first changes test accuracy by up to 30 points (abstract)"
    same = "The best α is the same for all tasks with Layca, not with SGD (5.3)"
    by_alpha = "c10-cnn1: −3.6, +0.1, +13.1, +28.0 at 0.2, 0.4, 0.6, 0.8"
    against = f"{ranges} against .178, .086, .300"
    return [
        *by_task(setups, (uniform, "best at 0, 0, 0.1", uniform_is_best)),
        *by_task(setups, (first, by_alpha, first_layers_beat_last)),
        *by_task(SECTION5[preset], (better, "+8.9, +11.1, +7.8 points", layca_beats_sgd)),
        *by_task(
            [setup for setup in SECTION5[preset] if setup.task in BEST_ON_TEST],
            (best, "+8.9, +11.1 points", layca_beats_sgd_at_best_on_test),
        ),
        *by_task(setups, (covers, against, layca_covers_more), (changes, ranges, thirty_points)),
        Claim(same, "0, 0, 0.1 against 0.2, 0.1 and 0.2, 0", partial(consistent, preset)),
    ]


FIG2 = Experiment("fig2", log="fig2", runs=runs, draw=draw, claims=claims)
