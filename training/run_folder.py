"""The files of a run: config.json, metrics.jsonl, rotation.png and checkpoint/."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from training.config import Config, UsageError, flag


class RunFolder:
    """A folder that holds one run. Metrics are whole lines, one an epoch; a configuration is written once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoint"
        self.rotation_plot = path / "rotation.png"
        self._config = path / "config.json"
        self._metrics = path / "metrics.jsonl"

    def read_config(self) -> Config | None:
        """The configuration of the run in this folder, `None` if there is none.

        Raises:
          UsageError: the file is not one that `prepare` wrote.
        """
        if not self._config.is_file():
            return None
        try:
            stored = json.loads(self._config.read_text())
            names = {field.name for field in fields(Config)}
            if set(stored) != names:
                raise ValueError(f"its fields should be {', '.join(sorted(names))}")
            return Config(**stored)
        except (ValueError, TypeError) as error:
            raise UsageError(f"{self._config} is not the configuration of a run: {error}") from None

    def refuse_unless_free(self, config: Config, *, resume: bool, overwrite: bool) -> None:
        """Raises `UsageError` if a run with this configuration may not go here; touches nothing."""
        parts = [self.path, *self.path.parents]
        existing = next(part for part in parts if part.exists())
        if not existing.is_dir():
            raise UsageError(f"--out {self.path}: {existing} is a file, not a folder; name another folder")
        if not os.access(existing, os.W_OK):
            raise UsageError(f"--out {self.path}: {existing} is not writable")
        if not self.path.exists() or not any(self.path.iterdir()):
            return
        stored = self.read_config()
        if stored is None:
            raise UsageError(f"--out {self.path} holds files that are no run; name a new or an empty folder")
        if overwrite:
            return
        if not resume:
            raise UsageError(
                f"--out {self.path} holds a run already: continue it with --resume, replace it with"
                " --overwrite, or name another folder"
            )
        differences = [
            f"{flag(name)} was {old}, is {getattr(config, name)}"
            for name, old in asdict(stored).items()
            if old != getattr(config, name)
        ]
        if differences:
            raise UsageError(
                f"the run in {self.path} cannot be resumed with other settings: {'; '.join(differences)}"
            )

    def prepare(self, config: Config, *, overwrite: bool) -> None:
        """Makes the folder for a run; with `overwrite`, removes the run that it holds."""
        if overwrite and self._config.is_file():
            for stale in (self._config, self._metrics, self.rotation_plot):
                stale.unlink(missing_ok=True)
            shutil.rmtree(self.checkpoints, ignore_errors=True)
        self.path.mkdir(parents=True, exist_ok=True)
        if not self._config.exists():
            _write_whole(self._config, json.dumps(asdict(config), indent=2) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """One dictionary for every whole line."""
        if not self._metrics.exists():
            return []
        lines = self._metrics.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def keep_metrics(self, epochs: int) -> list[dict[str, Any]]:
        """Drops what was written after epoch `epochs`, the one from which the run continues."""
        kept = [record for record in self.read_metrics() if record["epoch"] <= epochs]
        _write_whole(self._metrics, "".join(json.dumps(record) + "\n" for record in kept))
        return kept

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        with self._metrics.open("a") as file:
            file.write(json.dumps(record) + "\n")


def new_run_path(task: str, parent: Path = Path("runs")) -> Path:
    """`runs/001-TASK`, or the first number that is free."""
    taken = [path.name.split("-")[0] for path in parent.glob("*-*")] if parent.is_dir() else []
    number = 1 + max((int(name) for name in taken if name.isdigit()), default=0)
    return parent / f"{number:03d}-{task}"


def _write_whole(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    part.replace(path)
