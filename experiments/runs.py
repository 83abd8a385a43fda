"""Defines runs: each is named by its configuration, and is done and logged once."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np

import train
from experiments.log import key
from models import pure
from training.config import Config, Flags
from training.optimizer import make_optimizer
from training.parallel import Placed, place
from training.run import Session
from training.run_folder import RunFolder, final_accuracy
from training.step import train_step
from training.tasks import stop_reason

DIGITS = 5
# Runs of tasks that take more than `LONG` seconds save their state in `UNFINISHED`, ten times per run.
UNFINISHED, LONG = Path(__file__).parent / "unfinished", 60
# `--list` uses these if nothing is logged. The embedded tasks were measured on two idle cores; the others are
# guesses for one accelerator.
SECONDS_PER_EPOCH = {
    "mnist5k-mlp": 0.08,
    "mnist5k-mlp-no-norm": 0.08,
    "mnist5k-vgg": 1.2,
    "mnist5k-resnet": 1.35,
    "cifar16-vgg10": 2.2,
    "cifar16-vgg25": 5.5,
    "cifar16-resnet20": 2.2,
    "cifar16-wilson": 1.8,
    "c10-cnn1": 15,
    "c100-resnet": 15,
    "tiny-cnn": 45,
    "c10-cnn2": 22,
}


class Run(Protocol):
    """One run, which becomes one line of a log."""

    def fields(self) -> dict[str, Any]:
        """Returns everything that decides the result: the run's `config` in the log."""

    def task(self) -> str:
        """Returns the name of the task or of the data."""

    def estimate(self) -> float:
        """Estimates how many seconds the run takes."""

    def program(self) -> tuple[Any, ...]:
        """Identifies the compiled program; consecutive runs of one program also share their data."""

    def execute(self, data_dir: str | None) -> dict[str, Any]:
        """Does the run, and returns what is logged beside its `config`."""

    def trace(self) -> None:
        """Builds the network and the optimizer and traces one step, without data."""


@dataclass(frozen=True)
class Training:
    """A run of `train.fit`. A subclass that computes something else has a `PROGRAM` of its own."""

    config: Config
    PROGRAM: ClassVar[str | None] = None

    def fields(self) -> dict[str, Any]:
        own = asdict(self)
        config = own.pop("config")
        del config["data_dir"], config["schedule_epochs"]
        return {**config, **own, **({"program": self.PROGRAM} if self.PROGRAM else {})}

    def task(self) -> str:
        return self.config.task

    def estimate(self) -> float:
        return SECONDS_PER_EPOCH[self.config.task] * self.config.epochs

    def program(self) -> tuple[Any, ...]:
        config, kind = self.config, self.PROGRAM or "training"
        return kind, config.task, config.epochs, config.validation, config.layca, config.optimizer

    def optimizer(self) -> Callable[..., Any]:
        """Returns what replaces `make_optimizer`; equal functions share compiled programs."""
        return make_optimizer

    def execute(self, data_dir: str | None) -> dict[str, Any]:
        return self.summary(self.records(data_dir, epochs_between_tests(self.config)), data_dir)

    def records(
        self, data_dir: str | None, evaluate_every: int, look: train.Look = train.nothing_more
    ) -> list[dict[str, Any]]:
        """Trains, and returns the record of every epoch; a long run continues where it was interrupted.

        Args:
          data_dir: folder of datasets that are not embedded.
          evaluate_every: as in `train.fit`.
          look: as in `train.train_in`.

        Raises:
          Interrupted: the process was asked to end; the same command continues the run.
        """
        config, devices = self.config, train.all_devices()
        placed, make = load(config, data_dir), self.optimizer()
        if self.estimate() < LONG:
            history = train.fit(config, placed, evaluate_every=evaluate_every, optimizer=make)
            return [{**record, **look(state)} for state, record in history]
        folder, again = RunFolder(unfinished(self)), "the same command"
        with Session(config, folder, placed.source, again=again) as session:
            train.train_in(
                session, config, placed, devices, optimizer=make, evaluate_every=evaluate_every, look=look
            )
        return session.records

    def summary(self, records: list[dict[str, Any]], data_dir: str | None) -> dict[str, Any]:
        """Returns what is logged of the records: per metric a list over epochs, for `rotation` per layer."""
        names = [name for name in records[0] if name.endswith(("_loss", "_accuracy"))]
        curves: dict[str, Any] = {name: [rounded(record[name]) for record in records] for name in names}
        curves["rotation"] = {
            layer: [rounded(record["rotation"][layer]) for record in records]
            for layer in records[0]["rotation"]
        }
        source = load(self.config, data_dir).source
        return {
            "test_accuracy": final_accuracy(records),
            "ended": stop_reason(train.TASKS[self.config.task].stop, records),
            "curves": curves,
            "seconds": sum(record["seconds"] for record in records),
            **({} if source is None else {"data": source._asdict()}),
        }

    def trace(self) -> None:
        config, task = self.config, train.TASKS[self.config.task]
        program = train.compile_program(config, train.all_devices(), self.optimizer())
        hparams = config.hparams()
        state = jax.eval_shape(program.init, np.uint32(0), hparams)
        optimizer = self.optimizer()(
            config.optimizer, config.layca, hparams, program.depths, lambda count: 1.0
        )
        images = jax.ShapeDtypeStruct((config.batch_size, *task.input_shape), jnp.float32)
        labels = jax.ShapeDtypeStruct((config.batch_size,), jnp.int32)
        step = partial(train_step, pure(task.build), optimizer)
        jax.eval_shape(step, state, images, labels)


def epochs_between_tests(config: Config) -> int:
    """Returns how many epochs lie between two evaluations on test and held-out images.

    The paper's tasks evaluate after every epoch, which costs a few percent of the epoch. On small tasks an
    evaluation can take longer than the epoch, so these evaluate about six times per run.
    """
    return 1 if train.TASKS[config.task].train_size >= 50_000 else max(1, config.epochs // 6)


def training(**flags: Any) -> Training:
    """Returns a run with these flags of `train.py` and the defaults for all others."""
    return Training(Flags(**flags).resolved())


def config_key(run: Run) -> str:
    """Returns the name of a run: everything that decides its result, as JSON."""
    return key(run.fields())


def unfinished(run: Run) -> Path:
    """Returns the folder in which a long run saves its state until it is logged."""
    return UNFINISHED / sha256(config_key(run).encode()).hexdigest()[:16]


def distinct(runs: Iterable[Run]) -> dict[str, Run]:
    """Returns the runs by their `config_key`."""
    return {config_key(run): run for run in runs}


def by_program(runs: Iterable[Run]) -> list[Run]:
    """Groups the runs by program, and otherwise keeps their order."""
    places: dict[tuple[Any, ...], int] = {}
    return sorted(runs, key=lambda run: places.setdefault(run.program(), len(places)))


def load(config: Config, data_dir: str | None) -> Placed:
    """Loads the data of a run onto the devices; caches the last two datasets."""
    return _load(config.task, config.seed, config.validation, data_dir)


@lru_cache(maxsize=2)
def _load(task: str, seed: int, validation: bool, data_dir: str | None) -> Placed:
    data = train.TASKS[task].load(seed=seed, data_dir=data_dir)
    return place(data, train.all_devices(), seed if validation else None)


def rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")
