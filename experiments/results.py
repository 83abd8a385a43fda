"""What has been found so far: the logs of a preset together, read by figures and tables."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.log import RESULTS, Line, Log, key
from experiments.runs import Run
from training.config import UsageError

# A table of the README, whose runs no figure shows.
TABLE = "pairs"
# Reads a number off a logged line; `None` or NaN if it has none, as that of a run that was lost.
Measure = Callable[[Mapping[str, Any]], float | None]


class MissingRunError(UsageError):
    """A figure or table needs a run that no log has."""


class LostRunsError(Exception):
    """What a table needs is logged, but no seed of it has finished, finite runs that can be compared."""


class Results(dict[str, Line]):
    """All finished runs of a preset by `key`, in whichever log they stand."""

    def __init__(self, preset: str, folder: Path = RESULTS) -> None:
        self.preset, self.folder = preset, folder
        super().__init__(self._read())

    def _read(self) -> dict[str, Line]:
        runs: dict[str, Line] = {}
        for path in sorted((self.folder / self.preset).glob("*.jsonl")):
            if path.stem != TABLE:
                runs |= Log(self.preset, path.stem, self.folder).read()
        return runs

    def again(self) -> "Results":
        """Reads the logs once more: other commands may have added to them."""
        return type(self)(self.preset, self.folder)

    def of(self, run: Run) -> dict[str, Any]:
        """The logged line of a run.

        Raises:
          MissingRunError: it is not there.
        """
        name = key(run.numbers())
        if name not in self:
            raise MissingRunError(f"no log in {self.folder / self.preset} has the run {name}")
        return self[name]

    def has(self, run: Run) -> bool:
        return key(run.numbers()) in self

    def paired(self, sides: Sequence[Sequence[Run]], measure: Measure | None = None) -> np.ndarray:
        """A measure of runs, test accuracy if no other, of shape `(sides, seeds)`.

        Args:
          sides: of each side one run per seed, in the same order.
          measure: what is read off a line.

        Returns:
          The seeds of which all sides are logged and have a finite value.

        Raises:
          MissingRunError: there is no seed of which all sides are logged.
          LostRunsError: there is none with finite values.
        """
        read = measure or (lambda line: line.get("test_accuracy"))
        values = np.array([[read(line) for line in seed] for seed in self.lines(sides)], float)
        return without_lost(values).T

    def lines(self, sides: Sequence[Sequence[Run]]) -> list[list[dict[str, Any]]]:
        """By seed, the lines of all sides; as in `paired`, whatever their values."""
        seeds = [seed for seed in zip(*sides, strict=True) if all(map(self.has, seed))]
        # Without any, the first missing run is named.
        return [[self.of(run) for run in seed] for seed in seeds or [[side[0] for side in sides]]]

    def data(self, keys: Iterable[str]) -> str:
        """What the logged ones of these runs were trained on, by task; nothing of embedded data."""
        found: dict[str, set[str]] = {}
        for name in keys:
            line = self.get(name, {})
            if "data" in line:
                of = line["config"].get("task", line["config"].get("data"))
                found.setdefault(of, set()).add(line["data"]["name"])
        return "; ".join(f"{of}: {' and '.join(sorted(names))}" for of, names in sorted(found.items()))

    def accuracies(self, runs: Iterable[Run]) -> list[float]:
        """Test accuracies; NaN of a run that has none."""
        return list(np.array([self.of(run)["test_accuracy"] for run in runs], float))

    def spread(self, runs: Iterable[Run]) -> str:
        """`spread` of the test accuracies of those that are logged."""
        return spread(self.accuracies(filter(self.has, runs)))


def without_lost(values: np.ndarray) -> np.ndarray:
    """The seeds, along the first axis, that have finite values only; raises `LostRunsError` if none has."""
    kept = values[np.isfinite(values.reshape(len(values), -1)).all(axis=1)]
    if not len(kept):
        raise LostRunsError
    return kept


def spread(values: Iterable[float]) -> str:
    """Mean and, of several values, standard deviation."""
    values = list(values)
    deviation = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{deviation}"
