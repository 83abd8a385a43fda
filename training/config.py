"""Defines the settings of the command line: what they mean, their defaults by task, what is refused."""

import math
import os
import shlex
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from data.catalog import hint
from training.optimizer import DIRECTIONS, Hyperparameters
from training.tasks import TASKS, Schedule

_Switch = tyro.conf.FlagCreatePairsOff
T = TypeVar("T")
# Columns of a terminal. Below about 20, tyro wraps its help forever.
_NARROWEST = 40


class UsageError(Exception):
    """Is raised for a request that cannot be met; the message says what would be right."""


@dataclass(frozen=True)
class Config:
    """Holds what determines the results of a run, and where its data are; `config.json` stores it.

    Attributes:
      data_dir: folder of datasets that are not embedded, absolute. A run may continue with another one.
      schedule_epochs: number of epochs to which the schedule is scaled, where it is not `epochs`.
    """

    task: str
    optimizer: str
    layca: bool
    learning_rate: float
    alpha: float
    weight_decay: float
    batch_size: int
    epochs: int
    seed: int
    validation: bool
    data_dir: str | None
    schedule_epochs: int | None = None

    def hparams(self) -> Hyperparameters:
        """Returns the settings that the compiled program takes as arguments."""
        return Hyperparameters(self.learning_rate, self.alpha, self.weight_decay)

    def title(self) -> str:
        """Returns what the run is, in one line."""
        return f"{self.task}, {self.optimizer} {'with' if self.layca else 'without'} Layca"

    def schedule(self) -> Schedule:
        """Returns after which epochs the learning rate drops."""
        return TASKS[self.task].schedule_with(self.layca, self.schedule_epochs or self.epochs)

    def differences(self, started: "Config") -> list[str]:
        """Lists the settings by which this run cannot be the continuation of one that was started."""
        free = ("data_dir", "epochs", "schedule_epochs")
        found = [
            f"{flag(name)} was {old}, is {getattr(self, name)}"
            for name, old in asdict(started).items()
            if name not in free and old != getattr(self, name)
        ]
        epochs = f"--epochs was {started.epochs}, is {self.epochs}"
        if self.epochs < started.epochs:
            found.append(epochs)
        elif not found and self.schedule() != started.schedule():
            old, new = (" and ".join(map(str, config.schedule().drops)) for config in (started, self))
            found.append(
                f"{epochs}, which moves the drops of the learning rate from epochs {old} to {new};"
                " --keep-schedule leaves them where they are and goes on with the last rate"
            )
        return found


@dataclass(frozen=True)
class Flags:
    """Train a network of the paper and watch every layer rotate.

    Without arguments: 11 layers on 1,024 real handwritten digits with Layca, under a minute on a laptop.
    """

    task: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(TASKS) + "}")] = "mnist5k-mlp"
    """Dataset, network and schedule."""
    optimizer: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(DIRECTIONS) + "}")] = "sgd"
    """Base optimizer, with the defaults of Keras."""
    layca: bool = True
    """Whether Layca turns the steps of the optimizer into rotations."""
    learning_rate: float | None = None
    """With Layca, the tangent of the angle by which a step turns a layer. By default the task's."""
    alpha: float = 0.0
    """Layer-wise rates, Eq. (1) of the paper: below 0 the first layers train faster, above 0 the last ones;
    between -1 and 1."""
    weight_decay: float | None = None
    """Keras' L2 of kernels: adds 2 * weight_decay * weights to their gradient. By default the task's."""
    batch_size: int | None = None
    """Images per step. By default the task's."""
    epochs: int | None = None
    """Passes over the training images; the schedule scales with them. By default the task's."""
    seed: int = 0
    """Seed of the choice of images, the initial weights and the order of images."""
    validation: _Switch[bool] = False
    """Hold out a tenth of the training images to choose the best epoch; some tasks always do."""
    data_dir: str | None = None
    """Folder of datasets that are not embedded. A run can be resumed with another one."""
    out: Path | None = None
    """Folder of the run. By default a new numbered one under runs/."""
    resume: _Switch[bool] = False
    """Continue the run in --out."""
    keep_schedule: _Switch[bool] = False
    """With --resume and more --epochs: leave the drops of the learning rate where they were."""
    overwrite: _Switch[bool] = False
    """Replace the run in --out."""
    tensorboard: _Switch[bool] = False
    """Write scalars to OUT/tensorboard after every epoch, for TensorBoard (pip install tensorboard)."""
    shard_params: _Switch[bool] = False
    """Split parameters and optimizer state among the devices instead of copying them to each."""
    distributed: _Switch[bool] = False
    """Train with other processes, each started with the same flags and a common --out. JAX finds them under
    Slurm, Open MPI, Kubernetes and on TPUs; elsewhere set JAX_COORDINATOR_ADDRESS (host:port of
    process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID (0, 1, ...)."""
    start_timeout: int = 25
    """Seconds that --distributed waits for processes that start late."""
    debug: _Switch[bool] = False
    """Show the traceback of an error."""
    describe: _Switch[bool] = False
    """Print the table of leaves and the number of parameters, and exit."""

    def __post_init__(self) -> None:
        # Shells leave the tilde of --out=~/run alone.
        if self.out is not None:
            object.__setattr__(self, "out", Path(os.path.expanduser(self.out)))
        if self.data_dir is not None:
            object.__setattr__(self, "data_dir", os.path.expanduser(self.data_dir))

    @classmethod
    def of(cls, started: Config, *, tensorboard: bool) -> "Flags":
        """Returns the flags with which a run was started."""
        settings: dict[str, Any] = asdict(started)
        del settings["schedule_epochs"]
        return cls(**settings, tensorboard=tensorboard)

    def resolved(self, started: Config | None = None) -> Config:
        """Returns the run that is asked for, with the defaults of its task and optimizer.

        Args:
          started: the run that is to be continued, if any.

        Raises:
          UsageError: a value that is not possible.
        """
        _check_choice("--task", self.task, TASKS)
        _check_choice("--optimizer", self.optimizer, DIRECTIONS)
        task = TASKS[self.task]
        chosen: dict[str, Any] = {
            "learning_rate": (task.layca_rates if self.layca else task.rates)[self.optimizer],
            "weight_decay": 0.0 if self.layca else task.weight_decay,
            "batch_size": task.batch_size,
            "epochs": task.epochs,
        }
        chosen |= {name: value for name in chosen if (value := getattr(self, name)) is not None}
        # Absolute, so that the run can be resumed from another folder.
        data_dir = None if self.data_dir is None else os.path.abspath(self.data_dir)
        schedule_epochs = None
        if started is not None:
            schedule_epochs = started.schedule_epochs or (started.epochs if self.keep_schedule else None)
        config = Config(
            task=self.task,
            optimizer=self.optimizer,
            layca=self.layca,
            alpha=self.alpha,
            seed=self.seed,
            validation=task.validation or self.validation,
            data_dir=data_dir,
            schedule_epochs=None if schedule_epochs == chosen["epochs"] else schedule_epochs,
            **chosen,
        )
        _check_ranges(config)
        self._check(started)
        return config

    def _check(self, started: Config | None) -> None:
        if self.data_dir is not None:
            check_utf8("--data-dir", Path(self.data_dir))
            if not Path(self.data_dir).is_dir():
                moved = started is not None and started.data_dir == self.data_dir
                now = ", where the data of this run were: name the folder where they are now" if moved else ""
                raise UsageError(f"--data-dir {self.data_dir} is not a folder{now}")
        if self.resume and self.overwrite:
            raise UsageError("--resume continues a run and --overwrite replaces it: give one of them")
        if self.resume and self.out is None:
            raise UsageError("--resume needs the folder of the run: --out FOLDER")
        if self.keep_schedule and not self.resume:
            raise UsageError("--keep-schedule goes with --resume and more --epochs")
        if self.start_timeout < 1:
            raise UsageError(f"--start-timeout must be 1 or more, not {self.start_timeout}")
        if self.distributed and self.out is None:
            raise UsageError("--distributed needs a folder that all processes see: --out FOLDER")


def _check_ranges(config: Config) -> None:
    images = TASKS[config.task].num_training_images(config.validation)
    # Steps are counted in int32.
    most_epochs = (2**31 - 1) // -(-images // max(1, config.batch_size))
    ranges = {
        "learning_rate": (0 <= config.learning_rate < math.inf, "finite, 0 or more"),
        "alpha": (-1 <= config.alpha <= 1, "between -1 and 1"),
        "weight_decay": (0 <= config.weight_decay < math.inf, "finite, 0 or more"),
        "batch_size": (
            1 <= config.batch_size <= images,
            f"between 1 and the {images} training images",
        ),
        "epochs": (1 <= config.epochs <= most_epochs, f"between 1 and {most_epochs}"),
        "seed": (0 <= config.seed < 2**32, "between 0 and 2^32 - 1"),
    }
    for name, (holds, expected) in ranges.items():
        if not holds:
            raise UsageError(f"{flag(name)} must be {expected}, not {getattr(config, name)}")


def parse(kind: type[T], arguments: Sequence[str] | None, prog: str, default: T | None = None) -> T:
    """Parses a command line by tyro; `default` holds what it leaves out."""
    if shutil.get_terminal_size().columns < _NARROWEST:
        os.environ["COLUMNS"] = str(_NARROWEST)
    if default is None:
        return tyro.cli(kind, args=arguments, prog=prog)
    return tyro.cli(kind, args=arguments, prog=prog, default=default)


def check_utf8(flag: str, path: Path) -> None:
    """Raises `UsageError` for a path that libraries would read differently from Python."""
    if "\0" in str(path):
        raise UsageError(f"{flag} {str(path)!r} holds a NUL character, which no path may")
    whole = str(path.absolute())
    try:
        # Python represents bytes that are not text as surrogates, which cannot be encoded.
        same = os.fsencode(whole) == whole.encode()
    except UnicodeEncodeError:
        same = False
    if not same:
        raise UsageError(
            f"{flag} {whole!a} is not UTF-8, which checkpoints and datasets need: name another folder, or set"
            " LC_ALL to a UTF-8 locale such as C.UTF-8 if the name is right"
        )


def flag(name: str) -> str:
    """Returns the flag of a setting."""
    return "--" + name.replace("_", "-")


def command(config: Config) -> str:
    """Returns the command line that starts a run, with nothing left to defaults."""
    return _command(
        asdict(replace(config, epochs=config.schedule_epochs or config.epochs, schedule_epochs=None))
    )


def comparison(config: Config) -> str:
    """Returns the shortest command line of the run to compare with: without Layca, or with it.

    Learning rate and weight decay are the task's.
    """
    usual = asdict(Flags(task=config.task, optimizer=config.optimizer, layca=config.layca).resolved())
    usual |= {"task": Flags.task, "optimizer": Flags.optimizer, "layca": Flags.layca}
    usual |= {name: getattr(config, name) for name in ("learning_rate", "weight_decay", "schedule_epochs")}
    other = asdict(replace(config, layca=not config.layca))
    return _command({name: value for name, value in other.items() if value != usual[name]})


def _command(settings: Mapping[str, object]) -> str:
    words = ["python", "train.py"]
    for name, value in settings.items():
        if name == "layca" and not value:
            words.append("--no-layca")
        elif value is True:
            words.append(flag(name))
        elif value is not False and value is not None:
            words += [flag(name), str(value)]
    return shlex.join(words)


def _check_choice(flag: str, value: str, choices: Iterable[str]) -> None:
    choices = list(choices)
    if value not in choices:
        raise UsageError(f"{flag} must be one of {', '.join(choices)}, not {value!r}.{hint(value, choices)}")
