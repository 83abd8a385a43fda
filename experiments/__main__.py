"""Reproduces the paper's figures and claims: `python -m experiments NAME --preset laptop|small|paper`.

Does the runs that are not logged, appends them to `results/PRESET/*.jsonl`, and draws
`figures/PRESET/NAME.png` from the logs alone.
"""

import os
import shutil
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import tyro

from data.catalog import hint
from data.writing import reraise_os_errors
from experiments.curves import name_data
from experiments.experiment import experiment, experiments, names_of
from experiments.log import RESULTS, Log
from experiments.presets import PRESETS
from experiments.results import Results
from experiments.runs import Run, by_program, config_key, distinct
from experiments.summary import glance, summary
from experiments.work import finish, refuse_unwritable
from training.config import UsageError
from training.errors import exit_code
from training.parallel import check_devices

FOLDER = Path(__file__).parent
FIGURES, JOBS = FOLDER / "figures", FOLDER / "jobs"
NAMES = tuple(experiments())
_NAME = f"{', '.join(NAMES)}; `all`; or `summary`, the tables of claims."
_MINUTES = """\
Minutes are for one run after the other, and count shared runs once. They come from logged runs of
the same kind, else from logged epochs of the same task, else from an estimate: for embedded tasks
measured on two cores, for all others guessed for one accelerator."""
_Switch = tyro.conf.FlagCreatePairsOff


@dataclass(frozen=True)
class Flags:
    """Rerun and redraw the figures and claims of the paper."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME", help=_NAME)]
    preset: Literal["laptop", "small", "paper"] = "laptop"
    """Narrow networks on embedded data or on CIFAR-10 at 16 x 16, or the paper's, for an accelerator."""
    list: _Switch[bool] = False
    """Only list the number of runs, how many are done, their data, and how long the rest takes."""
    dry_run: _Switch[bool] = False
    """Only build every network and optimizer and trace one step of each, without data."""
    draw: _Switch[bool] = False
    """Only draw; all runs must be logged."""
    data_dir: str | None = None
    """Folder of datasets that are not embedded."""
    cluster: Literal["local", "slurm"] | None = None
    """Do each run in a job of its own, on this machine or through Slurm."""
    jobs: int | None = None
    """With --cluster: how many jobs at once; default 2 for local, as many as Slurm allows for slurm."""
    time_limit: int | None = None
    """With --cluster: minutes that a job may take; default 240."""
    debug: _Switch[bool] = False
    """Show the traceback of an error."""


def listing(names: Iterable[str], results: Results) -> str:
    """Returns a table: per experiment its runs, how many are done, its tasks, and the minutes left."""
    lines = [f"{'name':15} {'log':15} {'runs':>5} {'done':>5} {'minutes left':>13}  data and network"]
    counted: set[str] = set()
    for name in names:
        found = experiment(name)
        runs = distinct(found.known(results, guess=True))
        left = {key: run for key, run in runs.items() if key not in results and key not in counted}
        counted |= set(left)
        minutes = sum(_seconds(run, results) for run in left.values()) / 60
        done = sum(key in results for key in runs)
        tasks = ", ".join(dict.fromkeys(run.task() for run in runs.values())) or "-"
        lines.append(f"{name:15} {found.log:15} {len(runs):5} {done:5} {minutes:13.1f}  {tasks}")
    return "\n".join([*lines, _MINUTES])


def _seconds(run: Run, results: Results) -> float:
    """Estimates the seconds of a run: from logged runs of its kind, else from logged epochs of its task.

    If there are none, it takes the run's own estimate.
    """
    config = run.fields()
    same = ("task", "program", "epochs", "layer", "optimizer")
    kin = [line for line in results.values() if line["config"].get("task") == config.get("task")]
    alike = lambda line: all(line["config"].get(name) == config.get(name) for name in same)
    if took := [line["seconds"] for line in kin if alike(line)]:
        return sum(took) / len(took)
    if curves := [line for line in kin if "curves" in line and "epochs" in config]:
        per_epoch = [line["seconds"] / len(line["curves"]["train_loss"]) for line in curves]
        return config["epochs"] * sum(per_epoch) / len(per_epoch)
    return run.estimate()


def dry_run(names: Iterable[str], preset: str) -> None:
    """Traces one step of every program."""
    programs = {run.program(): run for name in names for run in experiment(name).runs(preset)}
    for run in by_program(programs.values()):
        run.trace()
        print("traced", *run.program(), flush=True)


def draw(name: str, results: Results, path: Path) -> None:
    """Draws the figure of an experiment, and names in it any data that are not embedded."""
    found = experiment(name)
    figure = found.draw(results.preset, results)
    name_data(figure, results.data(config_key(run) for run in found.known(results)))
    with reraise_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=100)


def by_jobs(names: Iterable[str], flags: Flags, results: Results, jobs: Path) -> list[str]:
    """Does the missing runs of all experiments in jobs; returns a message per run that failed."""
    if find_spec("submitit") is None:
        raise UsageError('--cluster needs submitit: pip install -e ".[cluster]"')
    if flags.cluster == "slurm" and shutil.which("sbatch") is None:
        raise UsageError("--cluster slurm: there is no sbatch on PATH; try --cluster local")
    import submitit

    from experiments import cluster

    # A folder per command, because local jobs are named by process IDs, which are reused.
    folder = jobs / flags.preset / str(flags.cluster) / time.strftime(f"%Y%m%d-%H%M%S-{os.getpid()}")
    executor = submitit.AutoExecutor(folder, flags.cluster, local_max_num_timeout=0, slurm_max_num_timeout=0)
    executor.update_parameters(
        name="layca",
        timeout_min=flags.time_limit or 240,
        slurm_gpus_per_node=1 if flags.preset == "paper" else None,
        slurm_array_parallelism=flags.jobs or 1000,
    )
    todo = [
        (Log(flags.preset, found.log, results.folder), run)
        for found in map(experiment, names)
        for run in found.known(results)
    ]
    return cluster.finish(todo, results, executor, flags.jobs or 2, flags.data_dir)


def asked(flags: Flags) -> list[str]:
    """Returns the names of the experiments that the command line asks for.

    Raises:
      UsageError: the flags contradict each other, or there is no such experiment.
    """
    if flags.name not in (choices := [*NAMES, "all", "summary"]):
        near = hint(flags.name, choices)
        raise UsageError(f"NAME must be one of {', '.join(choices)}, not {flags.name!r}.{near}")
    names = names_of(flags.preset)
    if flags.name in NAMES and flags.name not in names:
        raise UsageError(f"preset {flags.preset} has no {flags.name}; another --preset has")
    if flags.cluster is None and (flags.jobs, flags.time_limit) != (None, None):
        raise UsageError("--jobs and --time-limit are for --cluster local and --cluster slurm")
    for flag, value in (("--jobs", flags.jobs), ("--time-limit", flags.time_limit)):
        if value is not None and value < 1:
            raise UsageError(f"{flag} must be 1 or more, not {value}")
    return names if flags.name in ("all", "summary") else [flags.name]


def answer(flags: Flags, results: Path, figures: Path, jobs: Path) -> int:
    """Does what the command line asks for. Returns the exit code."""
    names, preset = asked(flags), flags.preset
    paths = {name: figures / preset / f"{name}.png" for name in names}
    if flags.dry_run:
        dry_run(names if flags.name != "summary" else (), preset)
        return 0
    found = Results(preset, results)
    if flags.name == "summary":
        logged = [each for name in PRESETS if (each := Results(name, results)) or name == preset]
        print(glance(logged), summary(found), sep="\n\n")
        return 0
    if flags.list:
        print(listing(names, found))
        return 0
    if not flags.draw:
        for path in paths.values():
            refuse_unwritable(path)
        if flags.cluster is None:
            check_devices()
    # Twice: runs at a chosen rate are known only once the runs that choose it are done.
    for _ in range(0 if flags.draw or flags.cluster is None else 2):
        if failed := by_jobs(names, flags, found, jobs):
            for message in failed:
                print(f"python -m experiments: error: {message}", file=sys.stderr)
            return 1
        found = found.again()
    for name, path in paths.items():
        for _ in range(0 if flags.draw or flags.cluster is not None else 2):
            log = Log(preset, experiment(name).log, results)
            finish(log, experiment(name).known(found), found, flags.data_dir)
            found = found.again()
        draw(name, found, path)
        print(path)
    return 0


def main(
    arguments: list[str] | None = None,
    results: Path = RESULTS,
    figures: Path = FIGURES,
    jobs: Path = JOBS,
) -> int:
    """Runs the command line and returns the exit code, as `train.main` does."""

    def command() -> int:
        flags = tyro.cli(Flags, args=arguments, prog="python -m experiments")
        return answer(flags, results, figures, jobs)

    return exit_code("python -m experiments", command, arguments)


if __name__ == "__main__":
    sys.exit(main())
