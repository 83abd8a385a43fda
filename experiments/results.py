"""What has been found so far: the logs of a preset together, read by figures and tables."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.log import RESULTS, Log, key
from experiments.runs import Run

# fig3, fig5a and fig8 read fig2's log, fig9 and fig10 fig4's; fig6 needs no runs.
LOGS = (
    "fig1a",
    "fig1b",
    "fig1c",
    "fig2",
    "fig4",
    "fig5b",
    "fig7",
    "tuned",
    "batchnorm",
    "plateau-length",
    "projection",
    "adaptivity",
    "tasks",
    "first",
)


class MissingRunError(Exception):
    """A figure or table needs a run that no log has."""


class Results(Mapping[str, Any]):
    """All finished runs of a preset by `key`, in whichever log they stand."""

    def __init__(self, preset: str, folder: Path = RESULTS) -> None:
        self.preset, self.folder = preset, folder
        self._runs: dict[str, Any] = {}
        for name in LOGS:
            self._runs |= Log(preset, name, folder).read()

    def __getitem__(self, key: str) -> Any:
        return self._runs[key]

    def __iter__(self) -> Any:
        return iter(self._runs)

    def __len__(self) -> int:
        return len(self._runs)

    def of(self, run: Run) -> dict[str, Any]:
        """The logged line of a run.

        Raises:
          MissingRunError: it is not there.
        """
        name = key(run.numbers())
        if name not in self._runs:
            raise MissingRunError(f"no log in {self.folder / self.preset} has the run {name}")
        return self._runs[name]

    def data(self, keys: Iterable[str]) -> str:
        """What the logged ones of these runs were trained on, by task; nothing of embedded data."""
        found: dict[str, set[str]] = {}
        for name in keys:
            line = self._runs.get(name, {})
            if "data" in line:
                of = line["config"].get("task", line["config"].get("data"))
                found.setdefault(of, set()).add(line["data"]["name"])
        return "; ".join(f"{of}: {' and '.join(sorted(names))}" for of, names in sorted(found.items()))

    def mean(self, runs: Iterable[Run]) -> float:
        """Mean test accuracy."""
        return float(np.mean(self.accuracies(runs)))

    def accuracies(self, runs: Iterable[Run]) -> list[float]:
        """Test accuracies."""
        return [self.of(run)["test_accuracy"] for run in runs]

    def spread(self, runs: Iterable[Run]) -> str:
        """`spread` of their test accuracies."""
        return spread(self.accuracies(runs))


def spread(values: Iterable[float]) -> str:
    """Mean and, of several values, standard deviation."""
    values = list(values)
    deviation = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{deviation}"
