"""What an experiment is, and which there are: every `Experiment` that a module of this folder defines."""

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

# `all` begins with these: Section 3 of the paper, 5 and 6, what others read before them; then claims that the
# paper draws no figure of. An experiment that is not named here comes after them.
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
      claims: returns the rows of the preset's table.
      then: returns the runs that follow from a choice that the results of others make; if the last argument
        is true, also a guess at those whose choice cannot be made yet.
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
        """All runs that can be told now, for the preset of the results."""
        return [*self.runs(results.preset), *self.then(results.preset, results, guess)]


@cache
def experiments() -> dict[str, Experiment]:
    """All experiments by name, in the order of `all`."""
    modules = [info.name for info in iter_modules([str(Path(__file__).parent)]) if info.name != "__main__"]
    values = [value for name in modules for value in vars(import_module(f"experiments.{name}")).values()]
    found = {value.name: value for value in values if isinstance(value, Experiment)}
    return {name: found[name] for name in dict.fromkeys([*FIRST, *sorted(found)])}


def experiment(name: str) -> Experiment:
    """The experiment of a name."""
    return experiments()[name]


def names_of(preset: str) -> list[str]:
    """The names of the experiments that a preset has."""
    return [name for name, found in experiments().items() if preset in found.presets]
