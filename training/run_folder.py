"""Reads and writes the files of a run: config.json, metrics.jsonl and what lies beside them."""

import errno
import json
import math
import os
import re
import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import msgspec
from filelock import AcquireReturnProxy, FileLock, SoftFileLock, Timeout

from data import Source
from data.writing import FileError, atomic_write, reraise_os_errors
from training.config import Config, UsageError, check_utf8

# orbax finds the parts of a checkpoint by a glob pattern that begins with the path of the run, so that these
# characters would be part of the pattern.
_GLOB = "[]*?\\"
# Errors of file systems without locks: some NFS, FUSE and cluster file systems.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class Record(TypedDict):
    """Holds the metrics of an epoch, a line of metrics.jsonl; `None` is not finite or was not measured."""

    epoch: int
    train_loss: float | None
    train_accuracy: float | None
    test_accuracy: float | None
    validation_accuracy: NotRequired[float | None]
    seconds: float
    rotation: dict[str, float | None]
    skipped: dict[str, int]
    device: NotRequired[str]
    matmul_precision: NotRequired[str]
    schedule_epochs: NotRequired[int]


# config.json: the fields of a `Config`, and what its data were read from.
_Source = msgspec.defstruct("_Source", Source.__annotations__.items(), forbid_unknown_fields=True)
_Stored = msgspec.defstruct(
    "_Stored",
    [
        *((field.name, field.type) for field in fields(Config) if field.name != "schedule_epochs"),
        ("schedule_epochs", int | None, None),
        ("data", _Source | None, None),
    ],
    forbid_unknown_fields=True,
)


def _parse(text: bytes, schema: type) -> dict[str, Any]:
    """Returns a JSON object as it stands.

    Raises:
      ValueError: it does not fit the schema; the message names the field.
    """
    try:
        found = msgspec.json.decode(text)
        msgspec.convert(found, schema)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except msgspec.MsgspecError as error:
        raise ValueError(str(error).replace("$.", "")) from None
    return found


def finite(value: Any) -> float | None:
    """Returns a number as JSON can hold it: `None` in the place of NaN and infinity."""
    return float(value) if math.isfinite(value) else None


def final_accuracy(records: Sequence[Mapping[str, Any]]) -> float | None:
    """Returns the last test accuracy or, where images were held out, that of the epoch best on those."""
    tested = [record for record in records if record["test_accuracy"] is not None]
    if not tested:
        return None
    if "validation_accuracy" in tested[-1]:
        return max(tested, key=lambda record: record["validation_accuracy"] or 0.0)["test_accuracy"]
    return tested[-1]["test_accuracy"]


class RunFolder:
    """Reads and writes the files of one run; `with_tensorboard` says whether it writes scalars, too."""

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
        """Returns the configuration of the run in this folder, `None` if there is none.

        Raises:
          UsageError: the file is not one that `prepare` wrote.
        """
        stored = self._read_config()
        return None if stored is None else Config(**stored[0])

    def refuse_other_data(self, source: Source | None) -> None:
        """Raises `UsageError` if the run in this folder was begun on other data than these."""
        stored = self._read_config()
        begun = Source(**stored[1]) if stored and stored[1] else None
        if begun and source and begun != source:
            raise UsageError(
                f"the run in {self.path} was begun on {begun} and cannot go on with {source}; --data-dir"
                " names the folder of the data"
            )

    def _read_config(self) -> tuple[dict[str, Any], dict[str, Any] | None] | None:
        """Returns the configuration, and the source of the data if the file has one."""
        if not self._config.is_file():
            return None
        try:
            stored = _parse(self._config.read_bytes(), _Stored)
        except ValueError as error:
            raise UsageError(f"{self._config} is not the configuration of a run: {error}") from None
        data = stored.pop("data", None)
        return stored, data

    def refuse_unless_free(self, config: Config, *, resume: bool, overwrite: bool) -> None:
        """Raises `UsageError` if a run with this configuration may not go here; changes no file."""
        self._refuse_bad_path()
        parts = [self.path, *self.path.parents]
        existing = next(part for part in parts if part.exists())
        if not existing.is_dir():
            raise UsageError(f"--out {self.path}: {existing} is a file, not a folder; name another folder")
        if not os.access(existing, os.W_OK):
            raise UsageError(f"--out {self.path}: {existing} is not writable")
        # A run that was killed at its start leaves only these.
        begun = re.compile(r"\.lock.*|\.pid|config\.json.*\.part")
        if not self.path.exists() or all(begun.fullmatch(entry.name) for entry in self.path.iterdir()):
            return
        stored = self.read_config()
        if stored is None:
            raise UsageError(f"--out {self.path} holds files that are no run; name a new or an empty folder")
        for file in (self._metrics, self.rotation_plot, self.report):
            if file.is_dir():
                raise UsageError(f"{file} is a folder, where a run writes a file: move it away")
        if overwrite:
            return
        if not resume:
            raise UsageError(
                f"--out {self.path} holds a run already: continue it with --resume, replace it with"
                " --overwrite, or name another folder"
            )
        if differences := config.differences(stored):
            raise UsageError(
                f"the run in {self.path} cannot be resumed with other settings: {'; '.join(differences)}"
            )

    def _refuse_bad_path(self) -> None:
        check_utf8("--out", self.path)
        whole = self.path.absolute().as_posix()  # on Windows without its separators
        if magic := [character for character in _GLOB if character in whole]:
            raise UsageError(
                f"--out {self.path}: checkpoints cannot be kept below a folder with {' '.join(magic)} in its"
                f" name{'' if magic[0] in str(self.path) else f' ({whole})'}; name another folder"
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
                lock = self._acquire()
            except Timeout:
                process = (self.holder() or "unknown").split()[0]
                raise UsageError(
                    f"--out {self.path}: another run is writing there (process {process})"
                ) from None
        with lock:
            with reraise_os_errors(self._pid):
                self._pid.write_text(f"{os.getpid()} {uuid.uuid4()}\n")
            yield

    def _acquire(self) -> AcquireReturnProxy:
        try:
            return FileLock(self._lock, thread_local=False, fallback_to_soft=False).acquire(blocking=False)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        marker = self._lock.with_name(".lock-marker")
        print(
            f"warning: the file system of {self.path} has no locks; {marker.name} keeps other runs away."
            " If this machine crashes, other machines cannot tell: remove the file by hand",
            file=sys.stderr,
        )
        return SoftFileLock(marker, thread_local=False).acquire(blocking=False)

    def holder(self) -> str | None:
        """Returns the process that holds the lock, and what tells its run from any other."""
        return self._pid.read_text().strip() or None if self._pid.exists() else None

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
        stored = None if overwrite else self._read_config()
        settings: dict[str, Any] = asdict(config)
        if config.schedule_epochs is None:
            del settings["schedule_epochs"]
        if stored is None or stored[0] != settings:
            data = stored[1] if stored else source and source._asdict()
            with atomic_write(self._config) as part:
                whole = settings if data is None else {**settings, "data": data}
                part.write_text(json.dumps(whole, indent=2) + "\n")

    def read_metrics(self) -> list[Record]:
        """Returns the records of all whole lines.

        Raises:
          FileError: a whole line is not a record.
        """
        if not self._metrics.exists():
            return []
        records: list[Record] = []
        for number, line in enumerate(self._metrics.read_bytes().splitlines(keepends=True), start=1):
            if not line.endswith(b"\n"):
                break
            try:
                record = cast(Record, _parse(line, Record))
                if records and record["rotation"].keys() != records[0]["rotation"].keys():
                    raise ValueError("its rotation has other layers than line 1")
            except ValueError as error:
                raise FileError(f"{self._metrics} is damaged: line {number} is no record: {error}") from None
            records.append(record)
        return records

    def keep_metrics(self, epochs: int) -> list[Record]:
        """Drops the records after epoch `epochs`, from which the run continues; returns the others."""
        records = self.read_metrics()
        kept = [record for record in records if record["epoch"] <= epochs]
        text = "".join(json.dumps(record) + "\n" for record in kept)
        if not self._metrics.exists() or self._metrics.read_bytes() != text.encode():
            with atomic_write(self._metrics) as part:
                part.write_text(text)
        return kept

    def append_metrics(self, record: Record) -> None:
        """Writes the record of an epoch."""
        with reraise_os_errors(self._metrics), self._metrics.open("a") as file:
            file.write(json.dumps(record) + "\n")


def new_run_path(task: str, parent: Path = Path("runs")) -> Path:
    """Returns `runs/001-TASK`, or the first number that is free."""
    taken = [path.name.split("-")[0] for path in parent.glob("*-*")] if parent.is_dir() else []
    # str.isdigit accepts superscripts, which int refuses.
    number = 1 + max((int(name) for name in taken if re.fullmatch("[0-9]+", name)), default=0)
    return parent / f"{number:03d}-{task}"
