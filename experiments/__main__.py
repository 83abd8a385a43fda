"""Figures and claims of the paper: `python -m experiments NAME --preset laptop|small|paper`.

Does the runs that the logs lack, appends them to `results/PRESET/*.jsonl` and draws `figures/PRESET/NAME.png`
from the logs and from nothing else.
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
from experiments.claims import judged
from experiments.experiment import experiment, experiments, names_of
from experiments.log import RESULTS, Log, key
from experiments.results import Results
from experiments.runs import Run, by_program
from experiments.work import finish, refuse_unwritable
from training.config import UsageError
from training.errors import exit_code
from training.parallel import check_devices

FOLDER = Path(__file__).parent
FIGURES, JOBS = FOLDER / "figures", FOLDER / "jobs"
NAMES = tuple(experiments())
_NAME = f"{', '.join(NAMES)}; `all`; `summary`, a table."
_MINUTES = """\
Minutes are counted once, where runs are shared, and one run after the other: from logged runs
of the same kind, else from logged epochs of the same task, else estimated: for two cores
(embedded tasks) or, a guess, for one accelerator (all others)."""
_Switch = tyro.conf.FlagCreatePairsOff


@dataclass(frozen=True)
class Flags:
    """Rerun and redraw the figures and claims of the paper."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME", help=_NAME)]
    preset: Literal["laptop", "small", "paper"] = "laptop"
    """Networks for two cores, on embedded data or CIFAR-10 at 16 x 16, or the paper's for an accelerator."""
    list: _Switch[bool] = False
    """Only tell the runs, how many are done, data, and how long the others take."""
    dry_run: _Switch[bool] = False
    """Only build every network and optimizer and trace a step of each, without data."""
    draw: _Switch[bool] = False
    """Only draw, from runs that are all logged."""
    data_dir: str | None = None
    """Folder of datasets that are not embedded."""
    cluster: Literal["local", "slurm"] | None = None
    """Do each run in a job of its own, on this machine's processor or through Slurm."""
    jobs: int | None = None
    """With --cluster: how many jobs at once; 2 if they are local, as many as Slurm lets if not."""
    time_limit: int | None = None
    """With --cluster: minutes that a job may take, 240 if not given."""
    debug: _Switch[bool] = False
    """Show the traceback of an error."""


def listing(names: Iterable[str], results: Results) -> str:
    """A row per experiment: its runs, those that are done, its tasks, how long the others take."""
    lines = [f"{'name':15} {'log':15} {'runs':>5} {'done':>5} {'minutes left':>13}  data and network"]
    counted: set[str] = set()
    for name in names:
        found = experiment(name)
        runs = {key(run.numbers()): run for run in found.known(results, guess=True)}
        left = {key: run for key, run in runs.items() if key not in results and key not in counted}
        counted |= set(left)
        minutes = sum(_seconds(run, results) for run in left.values()) / 60
        done = sum(key in results for key in runs)
        tasks = ", ".join(dict.fromkeys(run.task() for run in runs.values())) or "-"
        lines.append(f"{name:15} {found.log:15} {len(runs):5} {done:5} {minutes:13.1f}  {tasks}")
    return "\n".join([*lines, _MINUTES])


def _seconds(run: Run, results: Results) -> float:
    """How long a run should take: as others of the same program took, or as many of its epochs took.

    Without any that were logged, as it says itself.
    """
    numbers = run.numbers()
    same = ("task", "program", "epochs", "layer", "optimizer")
    kin = [line for line in results.values() if line["config"].get("task") == numbers.get("task")]
    alike = lambda line: all(line["config"].get(name) == numbers.get(name) for name in same)
    if took := [line["seconds"] for line in kin if alike(line)]:
        return sum(took) / len(took)
    if curves := [line for line in kin if "curves" in line and "epochs" in numbers]:
        per_epoch = [line["seconds"] / len(line["curves"]["train_loss"]) for line in curves]
        return numbers["epochs"] * sum(per_epoch) / len(per_epoch)
    return run.estimate()


def dry_run(names: Iterable[str], preset: str) -> None:
    """Traces a step of every program once."""
    programs = {run.program(): run for name in names for run in experiment(name).runs(preset)}
    for run in by_program(programs.values()):
        run.trace()
        print("traced", *run.program(), flush=True)


def summary(results: Results) -> str:
    """The table of claims that have runs; below it how many have none, and data that are not embedded."""
    lines, missing = ["| claim | command | paper | here | |", "|---|---|---|---|---|"], []
    for name in names_of(results.preset):
        for claim in experiment(name).claims(results.preset):
            ours, found = judged(claim, results)
            if found:
                cells = claim.text, f"`python -m experiments {name}`", claim.paper, ours, found
                lines.append(f"| {' | '.join(cells)} |")
            else:
                missing.append(name)
    if missing:
        counts = ", ".join(f"{missing.count(name)} of {name}" for name in dict.fromkeys(missing))
        lines += ["", f"Claims without runs so far: {counts}."]
    if data := results.data(results):
        lines += ["", f"Data: {data}."]
    return "\n".join(lines)


def draw(name: str, results: Results, path: Path) -> None:
    """Draws the figure of an experiment, with a word about data that are not embedded."""
    found = experiment(name)
    figure = found.draw(results.preset, results)
    if data := results.data(key(run.numbers()) for run in found.known(results)):
        figure.text(0.99, 0.005, data, ha="right", va="bottom", fontsize="x-small")
    with reraise_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=100)


def by_jobs(names: Iterable[str], flags: Flags, results: Results, jobs: Path) -> list[str]:
    """Has the missing runs of all experiments done by jobs at the same time; says which of them failed."""
    if find_spec("submitit") is None:
        raise UsageError('--cluster needs submitit: pip install -e ".[cluster]"')
    if flags.cluster == "slurm" and shutil.which("sbatch") is None:
        raise UsageError("--cluster slurm: there is no sbatch on PATH; try --cluster local")
    import submitit

    from experiments import cluster

    # A folder per command: the numbers of local jobs are those of processes, which come again.
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
    """The names of the experiments that the command line asks for.

    Raises:
      UsageError: flags do not go together, or there is no such experiment.
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
    if flags.name == "summary" or flags.list:
        print(summary(found) if flags.name == "summary" else listing(names, found))
        return 0
    if not flags.draw:
        for path in paths.values():
            refuse_unwritable(path)
        if flags.cluster is None:
            check_devices()
    # What follows from a choice is known only when its runs are done: everything is asked for twice.
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
    """The command line. Returns the exit code, as `train.main` does."""

    def command() -> int:
        flags = tyro.cli(Flags, args=arguments, prog="python -m experiments")
        return answer(flags, results, figures, jobs)

    return exit_code("python -m experiments", command, arguments)


if __name__ == "__main__":
    sys.exit(main())
