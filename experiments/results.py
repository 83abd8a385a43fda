"""Reads all logs of a preset, for figures and claims."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.log import RESULTS, Line, Log
from experiments.runs import Run, config_key
from training.config import UsageError

# Reads a number from a logged line; `None` or NaN if the line has none, as after a run that diverged.
Measure = Callable[[Mapping[str, Any]], float | None]


class MissingRunError(UsageError):
    """A figure or table needs a run that no log has."""


class NoFiniteSeedError(Exception):
    """The runs of a claim are logged, but no seed has finite values in all of them."""


class Results(dict[str, Line]):
    """All finished runs of a preset by their `config_key`, from all of its logs."""

    def __init__(self, preset: str, folder: Path = RESULTS) -> None:
        self.preset, self.folder = preset, folder
        super().__init__()
        for path in sorted((folder / preset).glob("*.jsonl")):
            self.update(Log(preset, path.stem, folder).read())

    def again(self) -> "Results":
        """Reads the logs again, to which other processes may have added runs."""
        return Results(self.preset, self.folder)

    def of(self, run: Run) -> Line:
        """Returns the logged line of a run.

        Raises:
          MissingRunError: no log has the run.
        """
        name = config_key(run)
        if name not in self:
            raise MissingRunError(f"no log in {self.folder / self.preset} has the run {name}")
        return self[name]

    def has(self, run: Run) -> bool:
        return config_key(run) in self

    def lines(self, sides: Sequence[Sequence[Run]]) -> list[list[Line]]:
        """Returns, per seed that is logged on all sides, the lines of the sides.

        Args:
          sides: per side, one run per seed in the same order.

        Raises:
          MissingRunError: no seed is logged on all sides.
        """
        seeds = [seed for seed in zip(*sides, strict=True) if all(map(self.has, seed))]
        # If there is none, `of` raises an error that names the first missing run.
        return [[self.of(run) for run in seed] for seed in seeds or [[side[0] for side in sides]]]

    def paired(self, sides: Sequence[Sequence[Run]], measure: Measure | None = None) -> np.ndarray:
        """Measures the runs of all sides, by default their test accuracy; shape `(sides, seeds)`.

        Only seeds are returned that are logged and have a finite value on all sides. Raises the errors of
        `lines` and `finite_seeds`.
        """
        read = measure or (lambda line: line.get("test_accuracy"))
        values = np.array([[read(line) for line in seed] for seed in self.lines(sides)], float)
        return finite_seeds(values).T

    def data(self, keys: Iterable[str]) -> str:
        """Names the data of these runs, by task if they differ; embedded data are left out."""
        found: dict[str, set[str]] = {}
        for name in keys:
            line = self.get(name, {})
            if "data" in line:
                of = line["config"].get("task", line["config"].get("data"))
                found.setdefault(of, set()).add(line["data"]["name"])
        if len(all_names := set().union(*found.values())) == 1:
            return all_names.pop()
        return "; ".join(f"{of}: {' and '.join(sorted(names))}" for of, names in sorted(found.items()))

    def accuracies(self, runs: Iterable[Run]) -> list[float]:
        """Returns the runs' test accuracies; NaN for a run that diverged."""
        return list(np.array([self.of(run)["test_accuracy"] for run in runs], float))


def finite_seeds(values: np.ndarray) -> np.ndarray:
    """Returns the rows (first axis: seeds) that are finite; raises `NoFiniteSeedError` if none is."""
    kept = values[np.isfinite(values.reshape(len(values), -1)).all(axis=1)]
    if not len(kept):
        raise NoFiniteSeedError
    return kept


def spread(values: Iterable[float]) -> str:
    """Formats the mean and, if there are several values, their standard deviation."""
    values = list(values)
    deviation = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{deviation}"
