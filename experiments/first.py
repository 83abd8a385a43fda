"""Does the most telling runs of a preset first, for a GPU that is available for half an hour.

    python -m experiments.first --preset paper --data-dir DIR

does the runs that are not logged. SIGTERM ends it after the current epoch with the state saved; the same
command continues. Runs that belong to an experiment are logged in its log, all others in `first.jsonl`.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from experiments.experiment import experiment, names_of
from experiments.fig5b import WEIGHT_DECAY
from experiments.log import RESULTS, Log
from experiments.presets import SECTION5, SECTION6
from experiments.results import Results
from experiments.runs import Run, config_key, distinct, training
from experiments.work import finish
from training.config import UsageError
from training.errors import exit_code

LOG = "first"
SEEDS = (0, 1)
SMALL_FIRST = ("tuned", "fig7", "fig2", "fig4")


def runs(preset: str) -> list[Run]:
    """Returns Layca against SGD at one rate, at other rates, by alpha, with L2, and against Adam.

    In `small`, a comparison with all tuned methods comes first.
    """
    if preset == "small":
        return [run for name in SMALL_FIRST for run in experiment(name).runs(preset)]
    first, second = SECTION5[preset][0].task, SECTION6[preset][0].task
    both = [{}, {"layca": False}]
    middle = [training(task=first, seed=seed, **side) for seed in SEEDS for side in both]
    rates = [
        training(task=first, seed=seed, layca=False, learning_rate=rate)
        for seed in SEEDS
        for rate in (3**-1, 3.0)
    ]
    alphas = [
        training(task=first, alpha=alpha, **side)
        for pair in ((-0.2, 0.2), (-0.4, 0.4))
        for side in both
        for alpha in pair
    ]
    decays = [training(task=second, layca=False, weight_decay=decay) for decay in (WEIGHT_DECAY[second], 0.0)]
    adam = [training(task=second, optimizer="adam", **side) for side in reversed(both)]
    wanted = [*middle, *rates, *alphas, *decays, training(task=second), *adam]
    return list(distinct(wanted).values())


def log_of(preset: str) -> dict[str, str]:
    """Returns, by `config_key`, the name of the log of every run that belongs to an experiment."""
    logs: dict[str, str] = {}
    for found in map(experiment, names_of(preset)):
        logs = dict.fromkeys(distinct(found.runs(preset)), found.log) | logs
    return logs


@dataclass(frozen=True)
class Flags:
    """Do the most telling runs of a preset that are not logged."""

    preset: Literal["laptop", "small", "paper"] = "paper"
    """As in `python -m experiments`."""
    data_dir: str | None = None
    """Folder of datasets that are not embedded."""
    results: Path = RESULTS
    """Folder of the presets' logs."""
    share: tuple[int, int] = (0, 1)
    """PART PARTS: `0 2` does every other run, and `1 2` in another process does the rest."""
    debug: tyro.conf.FlagCreatePairsOff[bool] = False
    """Show the traceback of an error."""


def answer(flags: Flags) -> None:
    """Does what the command line asks for."""
    part, parts = flags.share
    if not 0 <= part < parts:
        raise UsageError(f"--share must be PART PARTS with 0 <= PART < PARTS, not {part} {parts}")
    logs, results = log_of(flags.preset), flags.results.expanduser()
    for run in runs(flags.preset)[part::parts]:
        log = Log(flags.preset, logs.get(config_key(run), LOG), results)
        finish(log, [run], Results(flags.preset, results), flags.data_dir)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line and returns the exit code, as `train.main` does."""
    program = "python -m experiments.first"
    return exit_code(program, lambda: answer(tyro.cli(Flags, args=arguments, prog=program)), arguments)


if __name__ == "__main__":
    sys.exit(main())
