"""The logs of finished runs: a file of JSON lines per experiment, to which lines are only ever added."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any

from filelock import FileLock

from data.writing import FileError, reraise_os_errors

RESULTS = Path(__file__).parent / "results"
# Fields that many lines have, with the types of their values.
_FIELDS = {
    "config": dict,
    "curves": dict,
    "seconds": (int, float),
    "test_accuracy": (int, float, NoneType),
}


def key(numbers: Mapping[str, Any]) -> str:
    """What makes two runs the same run, from everything that decides what they compute."""
    return json.dumps(dict(numbers), sort_keys=True)


class Line(dict[str, Any]):
    """A line of a log, or an object in one. Whoever reads a field that it lacks gets a `FileError`."""

    def __init__(self, fields: Mapping[str, Any], place: str) -> None:
        super().__init__(fields)
        self._place = place

    def __missing__(self, field: str) -> Any:
        raise FileError(f"{self._place} has no field {field!r}; without that line its run is done again")


def _name(line: Line) -> str:
    return key(line["config"])


@cache
def _report(message: str) -> None:
    """Prints a message once, however often a log is read."""
    print(message, file=sys.stderr)


class Log:
    """`results/PRESET/NAME.jsonl`: one finished run per line; its `config` names it."""

    def __init__(self, preset: str, name: str, results: Path = RESULTS) -> None:
        self.path = results / preset / f"{name}.jsonl"

    def read(self, name_of: Callable[[Line], str] = _name) -> dict[str, Line]:
        """All finished runs by the `key` of their configuration. Damaged lines are reported and skipped."""
        runs: dict[str, Line] = {}
        if not self.path.exists():
            return runs
        for number, text in enumerate(self.path.read_bytes().splitlines(), start=1):
            place = f"{self.path}:{number}"
            try:
                line = json.loads(text, object_hook=lambda fields, place=place: Line(fields, place))
                for field in _FIELDS.keys() & line.keys():
                    if not isinstance(line[field], _FIELDS[field]):
                        raise ValueError(f"{field} is of another type")
                runs[name_of(line)] = line
            except (ValueError, TypeError, AttributeError, FileError, RecursionError) as error:
                _report(f"{place} is damaged and was skipped: {error}")
        return runs

    def append(self, run: Mapping[str, Any]) -> None:
        """Adds one line, whole, however many processes add at once."""
        with reraise_os_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_name(f".{self.path.stem}.lock")), self.path.open("ab+") as file:
                # A line that somebody was killed in must not swallow this one.
                end = file.seek(0, os.SEEK_END)
                if end and os.pread(file.fileno(), 1, end - 1) != b"\n":
                    file.write(b"\n")
                file.write((json.dumps(run) + "\n").encode())
