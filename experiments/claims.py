"""What the paper claims and what the logs say to it: rows of the tables in README.md.

The rule for all of them: a part of a claim is a number that the claim says is above 0, one per seed. What it
compares is paired by seed. A part is shown if there are at least five seeds and its interval, a bootstrap of
the mean over seeds, lies above 0; it is reversed if that lies below; otherwise it is not resolved.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from typing import NamedTuple

import numpy as np
from scipy import stats

from experiments.presets import Part
from experiments.results import LostRunsError, MissingRunError, Results

ENOUGH_SEEDS, CONFIDENCE, RESAMPLES = 5, 0.95, 100_000


class Finding(NamedTuple):
    """What was found.

    Attributes:
      ours: in words and numbers.
      parts: by name, what the claim says is above 0: one value per seed.
    """

    ours: str
    parts: Mapping[str, np.ndarray]


class Claim(NamedTuple):
    """A row of the table.

    Attributes:
      text: the claim in a few words.
      paper: the paper's value.
      measure: reads ours.
    """

    text: str
    paper: str
    measure: Callable[[Results], Finding]


def by_task(
    parts: Iterable[Part], text: str, paper: str, measure: Callable[[Part, Results], Finding]
) -> list[Claim]:
    """The same claim of several tasks, of which `measure` takes the part as its first argument."""
    return [Claim(f"{text}: {part.task}", paper, partial(measure, part)) for part in parts]


def interval(values: np.ndarray) -> tuple[float, float]:
    """The bootstrap's percentile interval of the mean, widened for few values.

    The quantiles are those at which it would equal Student's if the values were normal (Hesterberg, What
    Teachers Should Know about the Bootstrap, 2015): with five seeds .1 % and 99.9 %.
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


def verdict(parts: Mapping[str, np.ndarray]) -> str:
    """Applies the rule above to the parts of a claim."""
    seeds = min((len(values) for values in parts.values()), default=0)
    if seeds < ENOUGH_SEEDS:
        return f"not resolved with {seeds} seed{'s' * (seeds != 1)}"
    intervals = [interval(values) for values in parts.values()]
    shown = [low > 0 for low, _ in intervals]
    reversed_ = [high < 0 for _, high in intervals]
    if all(shown):
        return "shows"
    if any(shown):
        return "shows in part"
    return "reversed" if any(reversed_) else f"not resolved with {seeds} seeds"


def described(name: str, values: np.ndarray) -> str:
    """Mean, standard error and interval of a part; of too few seeds the mean alone."""
    if len(values) < ENOUGH_SEEDS:
        return f"{name} {np.mean(values):+.2g}" if len(values) else name
    low, high = interval(values)
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{name} {np.mean(values):+.2g} ± {error:.1g} [{low:.2g}, {high:.2g}]"


def judged(claim: Claim, results: Results) -> tuple[str, str]:
    """What was found in words and numbers, and the verdict; none where runs are missing."""
    try:
        ours, parts = claim.measure(results)
    except MissingRunError:
        return "not run yet", ""
    except LostRunsError:
        return "no seed can be compared", verdict({})
    return "; ".join([ours, *(described(name, values) for name, values in parts.items())]), verdict(parts)


def slope(values: np.ndarray, positions: Sequence[float] | np.ndarray) -> np.ndarray:
    """By seed, the slope of the line through `values`, of shape `(positions, seeds)`."""
    return np.polyfit(np.asarray(positions, float), values, 1)[0]
