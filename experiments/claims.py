"""What the paper claims and what the logs say to it: rows of the table in README.md."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from experiments.results import MissingRunError, Results

# What was found, and whether each part of the claim holds.
Finding = tuple[str, Sequence[bool | np.bool]]


class Claim(NamedTuple):
    """A row of the table.

    Attributes:
      text: the claim in a few words.
      paper: the paper's value.
      measure: reads ours, and says of each part of the claim whether it holds.
    """

    text: str
    paper: str
    measure: Callable[[Results], Finding]


def verdict(held: Sequence[bool | np.bool]) -> str:
    if all(held):
        return "shows"
    return "shows in part" if any(held) else "does not show at this size"


def row(claim: Claim, command: str, results: Results) -> str:
    try:
        ours, held = claim.measure(results)
        cells = [ours, verdict(held)]
    except MissingRunError:
        cells = ["not run yet", ""]
    return f"| {' | '.join([claim.text, f'`{command}`', claim.paper, *cells])} |"


def clearly(better: Sequence[float], worse: Sequence[float]) -> bool:
    """Whether the means differ by more than two standard errors, or by a point where there is one seed."""
    if min(len(better), len(worse)) == 1:
        margin = 0.01
    else:
        margin = 2 * np.sqrt(sum(np.var(side, ddof=1) / len(side) for side in (better, worse)))
    return bool(np.mean(better) - np.mean(worse) > margin)


def points(difference: float) -> str:
    """A difference of accuracies in points of 1 %."""
    return f"{100 * difference:+.1f}"
