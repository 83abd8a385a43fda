"""Runs: independent trainings, each named by its configuration, done once and logged."""

import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from tqdm import tqdm

import train
from data import Dataset
from experiments.log import Log, key, numbers
from training.config import Config
from training.records import final_accuracy
from training.stopping import stop_reason

DIGITS = 5


def finish(log: Log, configs: Iterable[Config]) -> None:
    """Trains those of `configs` that the log lacks, and adds them to it one by one."""
    done = log.read()
    missing = [config for config in configs if key(config) not in done]
    # Runs that share a compiled program and data follow each other.
    for config in tqdm(sorted(missing, key=_by_program), desc=log.path.stem, unit="run", disable=not missing):
        log.append(execute(config))


def execute(config: Config) -> dict[str, Any]:
    """Trains once and returns the line that is logged."""
    started = time.perf_counter()
    task = train.TASKS[config.task]
    every = max(1, config.epochs // 12)
    data = _data(config.task, config.seed)
    records = [record for _, record in train.fit(config, data, evaluate_every=every)]
    return {
        "config": numbers(config),
        "test_accuracy": final_accuracy(records),
        "ended": stop_reason(task.stop, records),
        "curves": _curves(records),
        "seconds": round(time.perf_counter() - started, 1),
        "versions": {package: version(package) for package in ("jax", "optax", "flax")},
    }


def _by_program(config: Config) -> tuple[Any, ...]:
    return config.task, config.layca, config.optimizer, config.validation, config.seed


@lru_cache(maxsize=1)
def _data(task: str, seed: int) -> Dataset:
    return train.TASKS[task].load(seed=seed)


def _curves(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Lists over epochs; `rotation` has one for each layer, in the order of the forward pass."""
    names = [name for name in records[0] if name.endswith(("_loss", "_accuracy"))]
    curves: dict[str, Any] = {name: [_rounded(record[name]) for record in records] for name in names}
    layers = records[0]["rotation"]
    curves["rotation"] = {
        layer: [_rounded(record["rotation"][layer]) for record in records] for layer in layers
    }
    return curves


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")


def validation_accuracy(run: Mapping[str, Any]) -> float:
    """The last one; 0 for a run that was lost before its end."""
    return run["curves"]["validation_accuracy"][-1] or 0.0
