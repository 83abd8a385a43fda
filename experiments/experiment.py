"""Defines what an experiment is, and finds every `Experiment` that a module of this folder defines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from matplotlib.figure import Figure

from experiments.claims import Claim
from experiments.presets import PRESETS
from experiments.results import Results
from experiments.runs import Run

# The order of `all`: Section 3 of the paper; Sections 5 and 6, runs that others use first; then claims
# without a figure in the paper. Experiments that are not named here follow in alphabetical order.
FIRST = (
    *("fig1a", "fig1b", "fig1c"),
    *("fig6", "fig7", "fig2", "fig3", "fig5a", "fig8"),
    *("fig4", "fig9", "fig10", "fig5b"),
    *("tuned", "batchnorm", "plateau-length", "projection", "adaptivity", "tangent", "rates"),
)


def _nothing(*arguments: Any) -> list[Any]:
    return []


@dataclass(frozen=True)
class Experiment:
    """A figure or claim of the paper.

    Attributes:
      name: NAME on the command line.
      log: runs are added to `results/PRESET/LOG.jsonl`; experiments that share runs share a log.
      draw: draws the figure of a preset from results.
      runs: returns the runs of a preset.
      claims: returns the claims of a preset.
      then: returns runs that depend on the results of others, as those at a chosen rate do. If its last
        argument is true, it guesses those that cannot be known yet.
      presets: the presets that have it.
    """

    name: str
    log: str
    draw: Callable[[str, Results], Figure]
    runs: Callable[[str], Sequence[Run]] = _nothing
    claims: Callable[[str], list[Claim]] = _nothing
    then: Callable[[str, Results, bool], list[Run]] = _nothing
    presets: tuple[str, ...] = PRESETS

    def known(self, results: Results, guess: bool = False) -> list[Run]:
        """Returns all runs that are known by now, for the preset of the results."""
        return [*self.runs(results.preset), *self.then(results.preset, results, guess)]


@cache
def experiments() -> dict[str, Experiment]:
    """Returns all experiments by name, in the order of `all`."""
    modules = [info.name for info in iter_modules([str(Path(__file__).parent)]) if info.name != "__main__"]
    values = [value for name in modules for value in vars(import_module(f"experiments.{name}")).values()]
    found = {value.name: value for value in values if isinstance(value, Experiment)}
    return {name: found[name] for name in dict.fromkeys([*FIRST, *sorted(found)])}


def experiment(name: str) -> Experiment:
    """Returns the experiment with a name."""
    return experiments()[name]


def names_of(preset: str) -> list[str]:
    """Returns the names of the experiments that a preset has."""
    return [name for name, found in experiments().items() if preset in found.presets]
