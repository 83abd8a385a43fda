"""Runs: independent, each named by its configuration, done once and logged."""

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
# Runs of tasks that take longer than this many seconds save their state there, every tenth of their epochs.
UNFINISHED, LONG = Path(__file__).parent / "unfinished", 60
# For `--list` where nothing is logged: measured on two idle cores for the embedded tasks, for the others a
# guess for one accelerator.
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
    """One line of a log."""

    def numbers(self) -> dict[str, Any]:
        """Everything that decides what the run computes: its name in the log."""

    def task(self) -> str:
        """The task or the data that it needs."""

    def estimate(self) -> float:
        """About how many seconds it takes."""

    def program(self) -> tuple[Any, ...]:
        """Runs with equal programs share what is compiled and, if they follow each other, the data."""

    def execute(self, data_dir: str | None) -> dict[str, Any]:
        """Computes what the log keeps beside the configuration."""

    def trace(self) -> None:
        """Builds network and optimizer and traces a step, without data."""


@dataclass(frozen=True)
class Training:
    """A run of `train.fit`. What computes something else derives from it, and has a `PROGRAM` of its own."""

    config: Config
    PROGRAM: ClassVar[str | None] = None

    def numbers(self) -> dict[str, Any]:
        left_out = ("data_dir", "schedule_epochs")
        own = asdict(self)
        config = {name: value for name, value in own.pop("config").items() if name not in left_out}
        return {**config, **own, **({"program": self.PROGRAM} if self.PROGRAM else {})}

    def task(self) -> str:
        return self.config.task

    def estimate(self) -> float:
        return SECONDS_PER_EPOCH[self.config.task] * self.config.epochs

    def program(self) -> tuple[Any, ...]:
        config, kind = self.config, self.PROGRAM or "training"
        return kind, config.task, config.epochs, config.validation, config.layca, config.optimizer

    def optimizer(self) -> Callable[..., Any]:
        """What stands in the place of `make_optimizer`; equal functions share what is compiled."""
        return make_optimizer

    def execute(self, data_dir: str | None) -> dict[str, Any]:
        return self.summary(self.records(data_dir, epochs_between_looks(self.config)), data_dir)

    def records(
        self, data_dir: str | None, evaluate_every: int, look: train.Look = train.nothing_more
    ) -> list[dict[str, Any]]:
        """The record of every epoch; a run that takes minutes goes on where it was cut.

        Args:
          data_dir: folder of datasets that are not embedded.
          evaluate_every: as in `train.fit`.
          look: as in `train.train_in`.

        Raises:
          Interrupted: the run was asked to end; the same command continues it.
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
        """What the log keeps of them; the data are those that they were trained on."""
        source = load(self.config, data_dir).source
        data = {} if source is None else {"data": source._asdict()}
        seconds = sum(record["seconds"] for record in records)
        return {**summary(self.config, records), "seconds": seconds, **data}

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


def epochs_between_looks(config: Config) -> int:
    """How often a run looks at test images and held-out ones.

    After every epoch, as the authors did, on their own tasks, where a look takes a few percent of an epoch.
    On small tasks it can take longer than the epoch: they look about six times.
    """
    return 1 if train.TASKS[config.task].train_size >= 50_000 else max(1, config.epochs // 6)


def training(**flags: Any) -> Training:
    """A run with the defaults of `train.py` for what is not given."""
    return Training(Flags(**flags).resolved())


def unfinished(run: Run) -> Path:
    """The folder in which a run that takes long keeps its states until it is logged."""
    return UNFINISHED / sha256(key(run.numbers()).encode()).hexdigest()[:16]


def by_program(runs: Iterable[Run]) -> list[Run]:
    """Runs that share a program follow each other; otherwise the order is kept."""
    places: dict[tuple[Any, ...], int] = {}
    return sorted(runs, key=lambda run: places.setdefault(run.program(), len(places)))


def load(config: Config, data_dir: str | None) -> Placed:
    """The data of a run on the devices; those of the last two that differ in data are kept."""
    return _load(config.task, config.seed, config.validation, data_dir)


@lru_cache(maxsize=2)
def _load(task: str, seed: int, validation: bool, data_dir: str | None) -> Placed:
    data = train.TASKS[task].load(seed=seed, data_dir=data_dir)
    return place(data, train.all_devices(), seed if validation else None)


def summary(config: Config, records: list[dict[str, Any]]) -> dict[str, Any]:
    """What is kept of a run's records: lists over epochs, in `rotation` one per layer in forward order."""
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
