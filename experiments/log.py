"""Reads and appends to the logs of finished runs: one file of JSON lines per experiment."""

import json
import os
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any

from filelock import FileLock

from data.writing import FileError, reraise_os_errors

RESULTS = Path(__file__).parent / "results"
# The types of the fields that most lines have.
_FIELDS = {
    "config": dict,
    "curves": dict,
    "seconds": (int, float),
    "test_accuracy": (int, float, NoneType),
}


def key(config: Mapping[str, Any]) -> str:
    """Returns the name of a run: its `config` as JSON."""
    return json.dumps(dict(config), sort_keys=True)


class Line(dict[str, Any]):
    """A line of a log, or an object in it, that raises `FileError` if a field is missing."""

    def __init__(self, fields: Mapping[str, Any], place: str) -> None:
        super().__init__(fields)
        self._place = place

    def __missing__(self, field: str) -> Any:
        raise FileError(f"{self._place} has no field {field!r}; delete that line to repeat its run")


@cache
def _report(message: str) -> None:
    """Prints a message once, even if a log is read several times."""
    print(message, file=sys.stderr)


class Log:
    """The finished runs of `results/PRESET/NAME.jsonl`, one per line, each named by its `config`."""

    def __init__(self, preset: str, name: str, results: Path = RESULTS) -> None:
        self.path = results / preset / f"{name}.jsonl"

    def read(self) -> dict[str, Line]:
        """Returns the finished runs by the `key` of their `config`; reports and skips damaged lines."""
        runs: dict[str, Line] = {}
        if not self.path.exists():
            return runs
        for number, text in enumerate(self.path.read_bytes().splitlines(), start=1):
            place = f"{self.path}:{number}"
            try:
                line = json.loads(text, object_hook=lambda fields, place=place: Line(fields, place))
                for field in _FIELDS.keys() & line.keys():
                    if not isinstance(line[field], _FIELDS[field]):
                        raise ValueError(f"{field} has the wrong type")
                runs[key(line["config"])] = line
            except (ValueError, TypeError, AttributeError, FileError, RecursionError) as error:
                _report(f"{place} is damaged and was skipped: {error}")
        return runs

    def append(self, run: Mapping[str, Any]) -> None:
        """Appends one whole line, even if several processes append at the same time."""
        with reraise_os_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_name(f".{self.path.stem}.lock")), self.path.open("ab+") as file:
                # If a process was killed while it wrote a line, do not append to that line.
                end = file.seek(0, os.SEEK_END)
                if end and os.pread(file.fileno(), 1, end - 1) != b"\n":
                    file.write(b"\n")
                file.write((json.dumps(run) + "\n").encode())
