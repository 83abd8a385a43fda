"""Provides runs for the tests of jobs. Each does at once what its name says, without training."""

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from experiments import __main__ as command_line
from experiments.experiment import Experiment


@dataclass(frozen=True)
class Quick:
    """Works, fails, is killed once, meets another run that is preempted once, or waits for a file."""

    what: str
    seed: int
    folder: str

    def fields(self):
        return {"program": "quick", "what": self.what, "seed": self.seed}

    def program(self):
        return ("quick",)

    def execute(self, data_dir):
        before = self.starts()
        with self.path().open("a") as file:
            file.write(f"{os.getpid()}\n")
        match self.what:
            case "fails":
                raise ValueError("there are no digits")
            case "killed" if not before:
                os.kill(os.getpid(), signal.SIGKILL)
            case "meets":
                wait_for(Quick("preempted", 1, self.folder).starts)
            case "preempted":
                wait_for(Quick("meets", 0, self.folder).starts)
                if not before:
                    os.kill(os.getpid(), signal.SIGUSR2)
                    time.sleep(300)
            case "waits":
                wait_for((Path(self.folder) / "go").exists)
        return {"test_accuracy": self.seed / 10, "cores": len(os.sched_getaffinity(0)), "data_dir": data_dir}

    def path(self):
        return Path(self.folder) / f"{self.what}-{self.seed}"

    def starts(self):
        """Returns the processes that began this run."""
        return [int(pid) for pid in self.path().read_text().split()] if self.path().exists() else []


def wait_for(happens):
    for _ in range(3000):
        if happens():
            return
        time.sleep(0.1)
    raise TimeoutError


def command(folder, runs, *arguments):
    """Runs `python -m experiments fig1a` with these runs, all files below `folder`; returns the exit code."""

    def draw(preset, results):
        results.accuracies(runs)
        return Figure()

    quick = Experiment("fig1a", log="fig1a", runs=lambda preset: runs, draw=draw)
    command_line.experiment = lambda name: quick
    places = (folder / name for name in ("results", "figures", "jobs"))
    return command_line.main(["fig1a", *arguments], *places)


if __name__ == "__main__":
    # Where tests run in the background, Ctrl-C is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    FOLDER, WHAT, SEEDS, *ARGUMENTS = sys.argv[1:]
    RUNS = [Quick(WHAT, seed, FOLDER) for seed in range(int(SEEDS))]
    sys.exit(command(Path(FOLDER), RUNS, *ARGUMENTS))
