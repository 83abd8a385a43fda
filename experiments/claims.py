"""Judges the paper's claims by one rule; the tables of README.md have one row per claim.

A claim has one or more margins: numbers that are positive if the claim holds, one per seed, from runs that
are paired by seed. A margin is shown if it has at least five seeds and its interval, a bootstrap of the mean
over seeds, lies above 0. It is reversed if the interval lies below 0, and otherwise not resolved.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from typing import NamedTuple

import numpy as np
from scipy import stats

from experiments.presets import Setup
from experiments.results import MissingRunError, NoFiniteSeedError, Results

ENOUGH_SEEDS, CONFIDENCE, RESAMPLES = 5, 0.95, 100_000


class Finding(NamedTuple):
    """What the logs say about a claim.

    Attributes:
      ours: the result in words and numbers.
      margins: by name, numbers that are positive if the claim holds, one per seed.
    """

    ours: str
    margins: Mapping[str, np.ndarray]


class Claim(NamedTuple):
    """A row of the table.

    Attributes:
      text: the claim in a few words.
      paper: the paper's value.
      measure: reads ours from the logs.
      case: what tells it from claims of the same text, such as the task.
    """

    text: str
    paper: str
    measure: Callable[[Results], Finding]
    case: str = ""


def by_task(
    setups: Iterable[Setup], *rows: tuple[str, str, Callable[[Setup, Results], Finding]]
) -> list[Claim]:
    """Makes a claim per row `(text, paper, measure)` and task; `measure` takes the setup first."""
    setups = list(setups)
    return [
        Claim(text, paper, partial(measure, setup), setup.task)
        for text, paper, measure in rows
        for setup in setups
    ]


def interval(values: np.ndarray) -> tuple[float, float]:
    """Returns the percentile bootstrap interval of the mean, widened for few values.

    Its quantiles are those at which it would equal Student's interval for normal values (Hesterberg, What
    Teachers Should Know about the Bootstrap, 2015): 0.1 % and 99.9 % for five seeds.
    """
    n = len(values)
    if n < 2:
        return -np.inf, np.inf
    student = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)
    tail = stats.norm.cdf(-np.sqrt(n / (n - 1)) * student)
    low, high = np.quantile(np.asarray(values)[_resamples(n)].mean(axis=1), [tail, 1 - tail])
    return float(low), float(high)


@cache
def _resamples(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, n, (RESAMPLES, n))


def verdict(margins: Mapping[str, np.ndarray]) -> str:
    """Applies the rule above to the margins of a claim."""
    seeds = min((len(values) for values in margins.values()), default=0)
    if seeds < ENOUGH_SEEDS:
        return f"not resolved with {seeds} seed{'s' * (seeds != 1)}"
    intervals = [interval(values) for values in margins.values()]
    shown = [low > 0 for low, _ in intervals]
    if all(shown):
        return "shows"
    if any(shown):
        return "shows in part"
    return "reversed" if any(high < 0 for _, high in intervals) else f"not resolved with {seeds} seeds"


def described(name: str, values: np.ndarray) -> str:
    """Formats the mean, standard error and interval of a margin; of too few seeds only the mean."""
    if len(values) < ENOUGH_SEEDS:
        return f"{name} {np.mean(values):+.2g}" if len(values) else name
    low, high = interval(values)
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{name} {np.mean(values):+.2g} ± {error:.1g} [{low:.2g}, {high:.2g}]"


def judged(claim: Claim, results: Results) -> tuple[str, str]:
    """Returns the result in words and numbers and the verdict, which is empty if runs are missing."""
    try:
        ours, margins = claim.measure(results)
    except MissingRunError:
        return "not run yet", ""
    except NoFiniteSeedError:
        return "no seed can be compared", verdict({})
    return "; ".join([ours, *(described(*margin) for margin in margins.items())]), verdict(margins)


def slope(values: np.ndarray, positions: Sequence[float] | np.ndarray) -> np.ndarray:
    """Returns, per seed, the slope of the line through `values` of shape `(positions, seeds)`."""
    return np.polyfit(np.asarray(positions, float), values, 1)[0]
