"""Runs: independent, each named by its configuration, done once and logged."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from importlib.metadata import version
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import train
from data import Dataset
from experiments.log import Log, key
from models import pure
from training.config import Config, Flags
from training.devices import all_devices
from training.optimizer import make_optimizer
from training.records import final_accuracy
from training.stopping import stop_reason

DIGITS = 5
# For `--list` where nothing is logged: measured on two idle cores for the embedded tasks, for the others a
# guess for one accelerator.
SECONDS_PER_EPOCH = {
    "mnist5k-mlp": 0.08,
    "mnist5k-mlp-no-norm": 0.08,
    "mnist5k-vgg": 1.2,
    "mnist5k-resnet": 1.35,
    "c10-cnn1": 15,
    "c100-resnet": 15,
    "tiny-cnn": 45,
    "c10-cnn2": 22,
}


class Run(Protocol):
    """One line of a log."""

    def numbers(self) -> dict[str, Any]:
        """Everything that decides what the run computes: its name in the log."""
        ...

    def task(self) -> str:
        """The task or the data that it needs."""
        ...

    def estimate(self) -> float:
        """About how many seconds it takes."""
        ...

    def program(self) -> tuple[Any, ...]:
        """Runs with equal programs share what is compiled and, if they follow each other, the data."""
        ...

    def execute(self, data_dir: str | None) -> dict[str, Any]:
        """Computes what the log keeps beside the configuration."""
        ...

    def trace(self) -> None:
        """Builds network and optimizer and traces a step, without data."""
        ...


@dataclass(frozen=True)
class Training:
    """A run of `train.fit`. Experiments that change its optimizer derive from it."""

    config: Config

    def numbers(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self.config).items() if name != "data_dir"}

    def task(self) -> str:
        return self.config.task

    def estimate(self) -> float:
        return SECONDS_PER_EPOCH[self.config.task] * self.config.epochs

    def program(self) -> tuple[Any, ...]:
        config, kind = self.config, self.numbers().get("program", "training")
        return kind, config.task, config.epochs, config.validation, config.layca, config.optimizer

    def optimizer(self) -> Callable[..., Any]:
        """What stands in the place of `make_optimizer`; equal functions share what is compiled."""
        return make_optimizer

    def execute(self, data_dir: str | None) -> dict[str, Any]:
        config = self.config
        data = load(config.task, config.seed, data_dir)
        every = max(1, config.epochs // 12)
        history = train.fit(config, data, evaluate_every=every, optimizer=self.optimizer())
        return summary(config, [record for _, record in history])

    def trace(self) -> None:
        config, task = self.config, train.TASKS[self.config.task]
        program = train.compile_program(config, all_devices(), self.optimizer())
        numbers = config.numbers()
        state = jax.eval_shape(program.init, np.uint32(0), numbers)
        optimizer = self.optimizer()(
            config.optimizer, config.layca, numbers, program.depths, lambda count: 1.0
        )
        images = jax.ShapeDtypeStruct((config.batch_size, *task.input_shape), jnp.float32)
        labels = jax.ShapeDtypeStruct((config.batch_size,), jnp.int32)
        step = partial(train.train_step, pure(task.build), optimizer)
        jax.eval_shape(step, state, images, labels)


def training(**flags: Any) -> Training:
    """A run with the defaults of `train.py` for what is not given."""
    return Training(Flags(**flags).resolved())


def finish(log: Log, runs: Sequence[Run], done: Mapping[str, Any], data_dir: str | None = None) -> None:
    """Does those of `runs` that are not `done`, and adds them to the log one by one."""
    missing = [run for run in runs if key(run.numbers()) not in done]
    for run in tqdm(by_program(missing), desc=log.path.stem, unit="run", disable=not missing):
        log.append(line(run, data_dir))


def line(run: Run, data_dir: str | None) -> dict[str, Any]:
    """Does a run and returns its line of the log."""
    started = time.perf_counter()
    found = run.execute(data_dir)
    return {
        "config": run.numbers(),
        **found,
        "seconds": round(time.perf_counter() - started, 1),
        "versions": {package: version(package) for package in ("jax", "optax", "flax")},
    }


def by_program(runs: Iterable[Run]) -> list[Run]:
    """Runs that share a program follow each other; otherwise the order is kept."""
    order: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        order.setdefault(run.program(), []).append(run)
    return [run for group in order.values() for run in group]


@lru_cache(maxsize=2)
def load(task: str, seed: int, data_dir: str | None) -> Dataset:
    return train.TASKS[task].load(seed=seed, data_dir=data_dir)


def summary(config: Config, records: list[dict[str, Any]]) -> dict[str, Any]:
    """What is kept of a run's records: lists over epochs, in `rotation` one a layer in forward order."""
    names = [name for name in records[0] if name.endswith(("_loss", "_accuracy"))]
    curves: dict[str, Any] = {name: [rounded(record[name]) for record in records] for name in names}
    curves["rotation"] = {
        layer: [rounded(record["rotation"][layer]) for record in records] for layer in records[0]["rotation"]
    }
    return {
        "test_accuracy": final_accuracy(records),
        "ended": stop_reason(train.TASKS[config.task].stop, records),
        "curves": curves,
    }


def rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")


def validation_accuracy(run: Mapping[str, Any]) -> float:
    """The last one; 0 for a run that was lost before its end."""
    return run["curves"]["validation_accuracy"][-1] or 0.0
