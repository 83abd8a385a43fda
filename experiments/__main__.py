"""Figures and claims of the paper: `python -m experiments NAME --preset laptop|small|paper`.

Does the runs that the logs lack, appends them to `results/PRESET/*.jsonl` and draws `figures/PRESET/NAME.png`
from the logs and from nothing else.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from data import DataError
from data.catalog import hint
from data.writing import FileError
from experiments.claims import judged
from experiments.cluster import JOBS, Cluster, ClusterError
from experiments.cluster import finish as finish_by_jobs
from experiments.log import RESULTS, Log, key
from experiments.presets import LEFT_OUT
from experiments.results import CLAIMS, MissingRunError, Results
from experiments.runs import Run, by_program, finish
from training.config import UsageError
from training.parallel import DeviceError, check_devices
from training.run import Interrupted

FIGURES = Path(__file__).parent / "figures"
# In the order of `all`: what others read comes first.
NAMES = (
    *(
        "fig1a",
        "fig1b",
        "fig1c",
        "fig6",
        "fig7",
        "fig2",
        "fig3",
        "fig5a",
        "fig8",
        "fig4",
        "fig9",
        "fig10",
        "fig5b",
    ),
    *CLAIMS,
    "rotation-accuracy",
)
_Switch = tyro.conf.FlagCreatePairsOff


@dataclass(frozen=True)
class Flags:
    """Rerun and redraw the figures and claims of the paper."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """fig1a to fig10, tuned, batchnorm, plateau-length, projection, adaptivity, tangent, rates,
    rotation-accuracy; `all`; `summary`, a table."""
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


def names_of(preset: str) -> list[str]:
    """The names that a preset has runs for."""
    return [name for name in NAMES if name not in LEFT_OUT[preset]]


def experiment(name: str) -> Any:
    """The module of a name: `LOG`, `runs(preset)`, `draw(preset, results)` and `claims(preset)`."""
    return import_module(f"experiments.{name.replace('-', '_')}")


def known(name: str, preset: str, results: Results, guess: bool = False) -> list[Run]:
    """The runs of an experiment: where they choose learning rates, also those that follow from the choice."""
    module = experiment(name)
    return module.runs(preset) + (module.then(preset, results, guess) if hasattr(module, "then") else [])


def listing(names: Iterable[str], preset: str, results: Results) -> str:
    """A row an experiment: its runs, those that are done, its tasks, how long the others take."""
    lines = [f"{'name':15} {'log':15} {'runs':>5} {'done':>5} {'minutes left':>13}  data and network"]
    counted: set[str] = set()
    for name in names:
        module = experiment(name)
        runs = {key(run.numbers()): run for run in known(name, preset, results, guess=True)}
        left = {key: run for key, run in runs.items() if key not in results and key not in counted}
        counted |= set(left)
        minutes = sum(_seconds(run, results) for run in left.values()) / 60
        done = sum(key in results for key in runs)
        tasks = ", ".join(dict.fromkeys(run.task() for run in runs.values())) or "-"
        lines.append(f"{name:15} {module.LOG:15} {len(runs):5} {done:5} {minutes:13.1f}  {tasks}")
    lines.append(
        "Minutes are counted once, where runs are shared, and one run after the other: from logged runs"
    )
    lines.append("of the same kind, else from logged epochs of the same task, else estimated: for two cores")
    lines.append("(embedded tasks) or, a guess, for one accelerator (all others).")
    return "\n".join(lines)


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
    curves = [line for line in kin if "curves" in line and "epochs" in numbers]
    if curves:
        per_epoch = [line["seconds"] / len(line["curves"]["train_loss"]) for line in curves]
        return numbers["epochs"] * sum(per_epoch) / len(per_epoch)
    return run.estimate()


def dry_run(names: Iterable[str], preset: str) -> None:
    """Traces a step of every program once."""
    programs = {run.program(): run for name in names for run in experiment(name).runs(preset)}
    for run in by_program(programs.values()):
        run.trace()
        print("traced", *run.program(), flush=True)


def summary(preset: str, results: Results) -> str:
    """The table of claims that have runs; below it how many have none, and data that are not embedded."""
    lines, missing = ["| claim | command | paper | here | |", "|---|---|---|---|---|"], []
    for name in names_of(preset):
        for claim in experiment(name).claims(preset):
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


def draw(name: str, preset: str, results: Results, figures: Path = FIGURES) -> Path:
    path = figures / preset / f"{name}.png"
    module = experiment(name)
    figure = module.draw(preset, results)
    if data := results.data(key(run.numbers()) for run in known(name, preset, results)):
        figure.text(0.99, 0.005, data, ha="right", va="bottom", fontsize="x-small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    return path


def by_jobs(names: Iterable[str], flags: Flags, found: Results, folder: Path) -> list[str]:
    """Has the missing runs of all experiments done by jobs at the same time; says which of them failed."""
    assert flags.cluster is not None
    cluster = Cluster(flags.cluster, flags.preset, at_once=flags.jobs, minutes=flags.time_limit, jobs=folder)
    todo = [
        (Log(flags.preset, experiment(name).LOG, found.folder), run)
        for name in names
        for run in known(name, flags.preset, found)
        if key(run.numbers()) not in found
    ]
    return finish_by_jobs(todo, found, cluster, flags.data_dir)


def main(
    arguments: list[str] | None = None,
    results: Path = RESULTS,
    figures: Path = FIGURES,
    jobs: Path = JOBS,
) -> int:
    """The command line. Returns the exit code."""
    flags = tyro.cli(Flags, args=arguments, prog="python -m experiments")
    if flags.name not in (choices := [*NAMES, "all", "summary"]):
        near = hint(flags.name, choices)
        print(f"error: NAME must be one of {', '.join(choices)}, not {flags.name!r}.{near}", file=sys.stderr)
        return 2
    names = names_of(flags.preset) if flags.name == "all" else [flags.name]
    if flags.name in LEFT_OUT[flags.preset]:
        print(f"error: preset {flags.preset} has no {flags.name}; another --preset has", file=sys.stderr)
        return 2
    if flags.dry_run:
        dry_run(names if flags.name != "summary" else (), flags.preset)
        return 0
    found = Results(flags.preset, results)
    if flags.name == "summary":
        print(summary(flags.preset, found))
        return 0
    if flags.list:
        print(listing(names, flags.preset, found))
        return 0
    try:
        if flags.cluster is None and (flags.jobs, flags.time_limit) != (None, None):
            raise ClusterError("--jobs and --time-limit are for --cluster local and --cluster slurm")
        if flags.cluster is None and not flags.draw:
            check_devices()
        if flags.cluster is not None and not flags.draw:
            for _ in range(2):
                failed = by_jobs(names, flags, found, jobs)
                for message in failed:
                    print(f"python -m experiments: error: {message}", file=sys.stderr)
                if failed:
                    return 1
                found = Results(flags.preset, results)
        for name in names:
            # What follows from a choice is known only when its runs are done.
            for _ in range(0 if flags.draw or flags.cluster is not None else 2):
                log = Log(flags.preset, experiment(name).LOG, results)
                finish(log, known(name, flags.preset, found), found, flags.data_dir)
                found = Results(flags.preset, results)
            print(draw(name, flags.preset, found, figures))
    except Interrupted as reason:
        print(reason)
    except (MissingRunError, DataError, ClusterError, UsageError) as error:
        print(f"python -m experiments: error: {error}", file=sys.stderr)
        return 2
    except (FileError, DeviceError) as error:
        print(f"python -m experiments: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
