"""The files of a run: config.json, metrics.jsonl, rotation.png, report.html, checkpoint/ and tensorboard/."""

import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from data import Source
from data.writing import FileError, atomic_write, reraise_os_errors
from training.config import Config, UsageError, flag

# orbax looks for the parts of a checkpoint by a pattern, and takes these in the folder's own name for a part
# of it: it finds nothing, or other folders' files.
_GLOB = "[]*?\\"


def finite(value: Any) -> float | None:
    """JSON has no NaN and no infinity; what is not finite becomes null there."""
    return float(value) if math.isfinite(value) else None


# What is read of a record; others may be there, too.
_RECORD = {
    "epoch": int,
    "train_loss": int | float | None,
    "train_accuracy": int | float | None,
    "test_accuracy": int | float | None,
    "seconds": float,
    "rotation": dict,
    "skipped": dict,
}


def _check_fields(
    found: Mapping[str, Any], expected: Mapping[str, Any], prefix: str = "", *, others: bool = False
) -> None:
    """Raises `ValueError` unless there are these fields of these types and, without `others`, no more."""
    for name, kind in expected.items():
        if name not in found:
            raise ValueError(f"it has no {prefix}{name}")
        value = found[name]
        # JSON has one kind of number, and to Python a bool is an int.
        fits = isinstance(value, int | float if kind is float else kind)
        if not fits or isinstance(value, bool) != (kind is bool):
            wanted = kind.__name__ if isinstance(kind, type) else kind
            raise ValueError(f"{prefix}{name} should be {wanted}, not {json.dumps(value)}")
    if not others and (more := sorted(found.keys() - expected.keys())):
        raise ValueError(f"there is no field {prefix}{more[0]}")


def final_accuracy(records: Sequence[Mapping[str, Any]]) -> float | None:
    """The last test accuracy or, where images were held out, that of the epoch best on those."""
    looked = [record for record in records if record["test_accuracy"] is not None]
    if not looked:
        return None
    if "validation_accuracy" in looked[-1]:
        return max(looked, key=lambda record: record["validation_accuracy"] or 0.0)["test_accuracy"]
    return looked[-1]["test_accuracy"]


class RunFolder:
    """A folder that holds one run. Metrics are whole lines, one per epoch; a configuration is written once.

    Attributes:
      with_tensorboard: whether the run writes scalars to `tensorboard`.
    """

    def __init__(self, path: Path, *, with_tensorboard: bool = False) -> None:
        self.path = path
        self.checkpoints = path / "checkpoint"
        self.rotation_plot = path / "rotation.png"
        self.report = path / "report.html"
        self.tensorboard = path / "tensorboard"
        self.with_tensorboard = with_tensorboard
        self._config = path / "config.json"
        self._metrics = path / "metrics.jsonl"
        self._lock = path / ".lock"
        self._pid = path / ".pid"  # of the process that holds the lock

    def read_config(self) -> Config | None:
        """The configuration of the run in this folder, `None` if there is none.

        Raises:
          UsageError: the file is not one that `prepare` wrote.
        """
        stored = self._read_config()
        return None if stored is None else Config(**stored[0])

    def refuse_other_data(self, source: Source | None) -> None:
        """Raises `UsageError` if the run in this folder was begun on other data than these."""
        stored = self._read_config()
        if stored is None or stored[1] is None or source is None:
            return
        begun = Source(**stored[1])
        if begun != source:
            raise UsageError(
                f"the run in {self.path} was begun on {begun} and cannot go on with {source}; --data-dir"
                " names the folder of the data"
            )

    def _read_config(self) -> tuple[dict[str, Any], dict[str, Any] | None] | None:
        """The configuration, and the source of the data if the file has one."""
        if not self._config.is_file():
            return None
        try:
            stored = json.loads(self._config.read_text())
            source = stored.pop("data", None)
            _check_fields(stored, {field.name: field.type for field in fields(Config)})
            if source is not None:
                _check_fields(source, Source.__annotations__, "data.")
            return stored, source
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(f"{self._config} is not the configuration of a run: {error}") from None

    def refuse_unless_free(self, config: Config, *, resume: bool, overwrite: bool) -> None:
        """Raises `UsageError` if a run with this configuration may not go here; touches nothing."""
        if "\0" in str(self.path):
            raise UsageError(f"--out {str(self.path)!r} holds a NUL character, which no path may")
        whole = self.path.absolute().as_posix()  # on Windows without its separators
        if magic := [character for character in _GLOB if character in whole]:
            raise UsageError(
                f"--out {self.path}: checkpoints cannot be kept below a folder with {' '.join(magic)} in its"
                f" name{'' if magic[0] in str(self.path) else f' ({whole})'}; name another folder"
            )
        parts = [self.path, *self.path.parents]
        existing = next(part for part in parts if part.exists())
        if not existing.is_dir():
            raise UsageError(f"--out {self.path}: {existing} is a file, not a folder; name another folder")
        if not os.access(existing, os.W_OK):
            raise UsageError(f"--out {self.path}: {existing} is not writable")
        # A run that was killed as it began leaves no more than these.
        begun = re.compile(r"\.lock|\.pid|config\.json.*\.part")
        if not self.path.exists() or all(begun.fullmatch(entry.name) for entry in self.path.iterdir()):
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

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder and keeps others from writing there, until left or until this process dies.

        Raises:
          UsageError: another process is writing there.
        """
        with reraise_os_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with reraise_os_errors(self._lock):
            try:
                lock = FileLock(self._lock, thread_local=False).acquire(blocking=False)
            except Timeout:
                process = self._pid.read_text().strip() if self._pid.exists() else "unknown"
                raise UsageError(
                    f"--out {self.path}: another run is writing there (process {process})"
                ) from None
        with lock:
            with reraise_os_errors(self._pid):
                self._pid.write_text(f"{os.getpid()}\n")
            yield

    def prepare(self, config: Config, source: Source | None = None, *, overwrite: bool) -> None:
        """Writes the configuration of a run and, as `data`, what its data were read from.

        With `overwrite`, first removes the run that is here.
        """
        if overwrite:
            # The configuration last: a folder without one is no run, and would be refused.
            for stale in (self._metrics, self.rotation_plot, self.report):
                stale.unlink(missing_ok=True)
            for stale in (self.checkpoints, self.tensorboard):
                shutil.rmtree(stale, ignore_errors=True)
        if overwrite or not self._config.exists():
            data = {} if source is None else {"data": source._asdict()}
            self._write_whole(self._config, json.dumps({**asdict(config), **data}, indent=2) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """One dictionary for every whole line.

        Raises:
          FileError: a whole line is not a record.
        """
        if not self._metrics.exists():
            return []
        records = []
        lines = self._metrics.read_text(errors="replace").splitlines(keepends=True)
        for number, line in enumerate(lines, start=1):
            if not line.endswith("\n"):
                break
            try:
                record = json.loads(line)
                _check_fields(record, _RECORD, others=True)
                if records and record["rotation"].keys() != records[0]["rotation"].keys():
                    raise ValueError("its rotation has other layers than line 1")
            except (ValueError, TypeError, RecursionError) as error:
                raise FileError(f"{self._metrics} is damaged: line {number} is no record: {error}") from None
            records.append(record)
        return records

    def keep_metrics(self, epochs: int) -> list[dict[str, Any]]:
        """Drops what was written after epoch `epochs`, the one from which the run continues."""
        records = self.read_metrics()
        kept = [record for record in records if record["epoch"] <= epochs]
        text = "".join(json.dumps(record) + "\n" for record in kept)
        if not self._metrics.exists() or self._metrics.read_text(errors="replace") != text:
            self._write_whole(self._metrics, text)
        return kept

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        with reraise_os_errors(self._metrics), self._metrics.open("a") as file:
            file.write(json.dumps(record) + "\n")

    @staticmethod
    def _write_whole(path: Path, text: str) -> None:
        with atomic_write(path) as part:
            part.write_text(text)


def new_run_path(task: str, parent: Path = Path("runs")) -> Path:
    """`runs/001-TASK`, or the first number that is free."""
    taken = [path.name.split("-")[0] for path in parent.glob("*-*")] if parent.is_dir() else []
    # Superscripts are digits to isdigit, and no numbers to int.
    number = 1 + max((int(name) for name in taken if re.fullmatch("[0-9]+", name)), default=0)
    return parent / f"{number:03d}-{task}"
