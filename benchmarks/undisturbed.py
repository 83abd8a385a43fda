"""Starts `train.py` as a process, and compares runs that were disturbed with one that was not."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import train
from training.checkpoints import Checkpoints
from training.config import Config
from training.parallel import all_devices
from training.run_folder import RunFolder

ROOT = Path(__file__).parent.parent
EPOCHS = 20
SETTINGS = ("--epochs", str(EPOCHS), "--batch-size", "512", "--optimizer", "adam")


class Ended(NamedTuple):
    """Holds the exit code of a process (negative: the signal that ended it) and the lines that it printed."""

    exit_code: int
    out: list[str]
    err: list[str]

    def traceback(self) -> bool:
        return any(line.startswith("Traceback") for line in self.err)


def start(folder: Path, *flags: str) -> subprocess.Popen[str]:
    """Starts a run of `train.py`."""
    return start_command(["train.py", *SETTINGS, *flags, "--out", str(folder)])


def start_command(arguments: Sequence[str]) -> subprocess.Popen[str]:
    """Starts Python with these arguments."""
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=pipe, stderr=pipe, text=True)


def finish(process: subprocess.Popen[str]) -> Ended:
    """Waits until a process ends."""
    out, err = (text or "" for text in process.communicate())
    return Ended(process.returncode, out.splitlines(), err.splitlines())


def wait_for(process: subprocess.Popen[str], happens: Callable[[], bool]) -> None:
    """Waits until something happens, or the process ends."""
    while not happens() and process.poll() is None:
        time.sleep(0.001)


def epochs(folder: Path) -> int:
    """Returns the number of epochs that a run has recorded."""
    metrics = folder / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


class Undisturbed:
    """Trains a run and leaves it alone. Disturbed runs must end with the same records and the same state.

    Attributes:
      bytes: the size of its files.
    """

    def __init__(self, folder: Path) -> None:
        ended = finish(start(folder))
        if ended.exit_code:
            raise SystemExit("\n".join(["the undisturbed run failed:", *ended.err]))
        self.bytes = sum(path.stat().st_size for path in folder.rglob("*"))
        config, devices = RunFolder(folder).read_config(), all_devices()
        assert isinstance(config, Config)
        program = train.compile_program(config, devices)
        self._like = devices.abstract(jax.eval_shape(program.init, np.uint32(0), config.hparams()))
        self._records, self._state = self._read(folder)

    def _read(self, folder: Path) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
        """Returns the records without their times, and the bytes of every leaf of the last state, by path."""
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        with Checkpoints(folder / "checkpoint") as checkpoints:
            leaves = jax.tree.leaves_with_path(checkpoints.restore(EPOCHS, self._like))
        state = {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}
        return [{**json.loads(line), "seconds": None} for line in lines], state

    def differences(self, folder: Path) -> list[str]:
        """Says how a run that has ended differs from this one, bit for bit."""
        try:
            records, state = self._read(folder)
        except Exception as error:
            return [f"the run cannot be read: {error!r}"]
        found = [] if records == self._records else ["its records differ"]
        changed = [path for path, leaf in self._state.items() if state.get(path) != leaf]
        return [*found, *(f"{path} differs" for path in changed)]

    def resumed(self, folder: Path, arguments: Sequence[str] | None = None) -> list[str]:
        """Resumes a run, if need be with Python's arguments, and says what is wrong with its end."""
        ended = finish(start(folder, "--resume") if arguments is None else start_command(arguments))
        if ended.exit_code or ended.traceback():
            return [f"resumed, it ended with exit code {ended.exit_code}: {' '.join(ended.err[-3:])}"]
        return self.differences(folder)
