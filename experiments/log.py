"""The logs of finished runs: a file of JSON lines an experiment, to which lines are only ever added."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

RESULTS = Path(__file__).parent / "results"


def key(numbers: Mapping[str, Any]) -> str:
    """What makes two runs the same run, from everything that decides what they compute."""
    return json.dumps(dict(numbers), sort_keys=True)


class Log:
    """`results/PRESET/NAME.jsonl`: one finished run a line; its `config` names it."""

    def __init__(self, preset: str, name: str, results: Path = RESULTS) -> None:
        self.path = results / preset / f"{name}.jsonl"

    def read(self) -> dict[str, dict[str, Any]]:
        """All finished runs by the `key` of their configuration. Damaged lines are reported and skipped."""
        runs: dict[str, dict[str, Any]] = {}
        if not self.path.exists():
            return runs
        for number, line in enumerate(self.path.read_bytes().splitlines(), start=1):
            try:
                run = json.loads(line)
                runs[key(run["config"])] = run
            except (ValueError, TypeError, KeyError) as error:
                print(
                    f"{self.path}:{number} is damaged and was skipped: {error or type(error).__name__}",
                    file=sys.stderr,
                )
        return runs

    def append(self, run: Mapping[str, Any]) -> None:
        """Adds one line, whole, however many processes add at once."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_name(f".{self.path.stem}.lock")), self.path.open("ab+") as file:
            # A line that somebody was killed in must not swallow this one.
            end = file.seek(0, os.SEEK_END)
            if end and os.pread(file.fileno(), 1, end - 1) != b"\n":
                file.write(b"\n")
            file.write((json.dumps(run) + "\n").encode())
