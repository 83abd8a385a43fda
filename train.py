"""Train a network of the paper: `python train.py --help`.

From the flags to a run and its loop. `training/step.py` has what is below: pure functions of a `TrainState`.
"""

import errno
import math
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import jax
import numpy as np
import tyro

from data import DataError, Dataset
from data.writing import FileError
from layca_optax import alpha_learning_rates, describe
from training.config import Config, Flags, UsageError
from training.optimizer import MakeOptimizer, make_optimizer, skipped_steps
from training.parallel import (
    DeviceError,
    Devices,
    OtherProcessError,
    Placed,
    all_devices,
    check_devices,
    matmul_precision,
    on_primary,
    only_primary_prints,
    place,
    start_distributed,
    warn_of_idle_gpu,
)
from training.run import Interrupted, Session
from training.run_folder import RunFolder, final_accuracy, finite, new_run_path
from training.step import Metrics, TrainState, compile_program
from training.tasks import TASKS, stop_reason

# What somebody wants to know of the state after every epoch, beside the record.
Look = Callable[[TrainState], Mapping[str, Any]]


def fit(
    config: Config,
    data: Dataset | Placed,
    *,
    devices: Devices | None = None,
    state: TrainState | None = None,
    history: Sequence[Mapping[str, Any]] = (),
    evaluate_every: int | None = None,
    optimizer: MakeOptimizer = make_optimizer,
) -> Iterator[tuple[TrainState, dict[str, Any]]]:
    """Trains and yields the state and a record of metrics after every epoch.

    The next epoch donates the state that was yielded: use or copy it before going on. To continue a run, pass
    its last `state` and the `history` of its records. Ends early where the task's rule says so. `optimizer`
    is called with the arguments of `make_optimizer`. Of several runs in one process, `data` that are `Placed`
    go to the devices once.
    """
    task = TASKS[config.task]
    devices = devices or all_devices()
    program = compile_program(config, devices, optimizer)
    hparams, seed = config.hparams(), np.uint32(config.seed)
    reference = program.init(seed, hparams).params
    state = program.init(seed, hparams) if state is None else state

    if not isinstance(data, Placed):
        data = place(data, devices, config.seed if config.validation else None)
    where = {"device": devices.describe(), "matmul_precision": matmul_precision()}
    records = list(history)
    for epoch in range(len(records) + 1, config.epochs + 1):
        if stop_reason(task.stop, records):
            return
        started = time.perf_counter()
        state, metrics = program.train_epoch(state, data.train, data.scale, seed, hparams)
        record: dict[str, Any] = {"epoch": epoch, "train_loss": _mean(metrics.loss, metrics)}
        record["train_accuracy"] = _mean(metrics.correct, metrics)
        last = epoch == config.epochs or stop_reason(task.stop, [*records, record])
        if last or epoch == 1 or epoch % (evaluate_every or task.evaluate_every) == 0:
            found = {name: program.evaluate(state, *split, data.scale) for name, split in data.splits.items()}
            record |= {name: _mean(metrics.correct, metrics) for name, metrics in found.items()}
        else:
            record |= dict.fromkeys(data.splits)
        rotation = jax.device_get(program.rotation(state.params, reference))
        record["seconds"] = time.perf_counter() - started
        record["rotation"] = {layer: finite(rotation[layer]) for layer in program.layers}
        record["skipped"] = skipped_steps(state.opt_state)
        record |= where
        records.append(record)
        yield state, record


def _mean(total: jax.Array, metrics: Metrics) -> float | None:
    return finite(float(total) / float(metrics.images))


def nothing_more(state: TrainState) -> Mapping[str, Any]:
    """A `Look` that adds nothing to a record."""
    return {}


def train_in(
    session: Session,
    config: Config,
    data: Dataset | Placed,
    devices: Devices,
    *,
    optimizer: MakeOptimizer = make_optimizer,
    evaluate_every: int | None = None,
    look: Look = nothing_more,
) -> None:
    """Trains from the newest good state of a session on; `look` adds to the record of every epoch."""
    program = compile_program(config, devices, optimizer)
    state = session.restore(devices.abstract(jax.eval_shape(program.init, np.uint32(0), config.hparams())))
    history = fit(
        config,
        data,
        devices=devices,
        state=state,
        history=session.records,
        evaluate_every=evaluate_every,
        optimizer=optimizer,
    )
    for new, record in history:
        session.log_and_checkpoint(new, {**record, **look(new)})


def describe_task(config: Config) -> str:
    """The table of leaves of a task's network, from shapes alone."""
    program = compile_program(config, all_devices())
    params = jax.eval_shape(program.init, np.uint32(0), config.hparams()).params
    rates = alpha_learning_rates(config.learning_rate, config.alpha, program.depths)
    rotate = "layer" if config.layca else lambda path, leaf: None
    return describe(params, rotate=rotate, learning_rate=rates)


def run(
    config: Config, folder: RunFolder, *, overwrite: bool = False, devices: Devices | None = None
) -> float | None:
    """Trains as `config` says, keeps what comes of it in `folder`, returns the test accuracy.

    Raises:
      Interrupted: after SIGTERM, SIGHUP or Ctrl-C, with the state saved.
    """
    task, devices = TASKS[config.task], devices or all_devices()
    warn_of_idle_gpu()
    devices.check_batch_size(config.batch_size, task.num_training_images(config.validation))
    data = task.load(seed=config.seed, data_dir=config.data_dir)
    if data.source is not None:
        print(f"data: {data.source}")
    with Session(config, folder, data.source, overwrite=overwrite) as session:
        train_in(session, config, data, devices)
        session.close(stop_reason(task.stop, session.records))
    return final_accuracy(session.records)


def read(arguments: list[str] | None = None) -> tuple[Flags, Config, RunFolder]:
    """Turns a command line into a run and its folder; connects with other processes, writes nothing.

    Raises:
      UsageError: what is asked for is not possible.
    """
    flags = tyro.cli(Flags, args=arguments, prog="train.py")
    if flags.resume and flags.out is not None:
        folder = RunFolder(flags.out)
        stored = folder.read_config()
        if stored is not None:
            # What the command line leaves out is as the run was started.
            started = Flags(**asdict(stored), tensorboard=folder.tensorboard.is_dir())
            flags = tyro.cli(Flags, args=arguments, prog="train.py", default=started)
    config = flags.resolved()
    path = new_run_path(config.task) if flags.out is None else flags.out
    folder = RunFolder(path, with_tensorboard=flags.tensorboard)
    if flags.distributed:
        start_distributed()
    check_devices()
    if not flags.describe:
        on_primary(lambda: folder.refuse_unless_free(config, resume=flags.resume, overwrite=flags.overwrite))
    return flags, config, folder


def answer(flags: Flags, config: Config, folder: RunFolder) -> None:
    """Does what the command line asks for."""
    if flags.describe:
        print(describe_task(config))
        return
    if config.weight_decay and config.layca and config.optimizer == "sgd":
        print("note: behind plain SGD, Layca projects weight decay away again: it has no effect on kernels")
    accuracy = run(config, folder, overwrite=flags.overwrite, devices=all_devices(flags.shard_params))
    print(f"test accuracy {math.nan if accuracy is None else accuracy:.4f}")


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit code, 0 also for a run that was asked to end."""

    def command() -> None:
        flags, config, folder = read(arguments)
        with only_primary_prints():
            answer(flags, config, folder)

    return exit_code("train.py", command, arguments)


def exit_code(program: str, command: Callable[[], int | None], arguments: list[str] | None) -> int:
    """Runs a command line, and turns what a user can bring about into one sentence.

    Args:
      program: what the sentence begins with.
      command: does everything, from parsing the arguments on.
      arguments: those of `main`; with `--debug` among them, there is a traceback too.

    Returns:
      What `command` returns, or 0; 2 if the request or the data are bad; 1 if files cannot be written or
      read, or another process ended the run.
    """
    try:
        return command() or 0
    except Interrupted as reason:
        with only_primary_prints():
            print(reason)
    except (UsageError, DataError, FileError, DeviceError, OtherProcessError, OSError) as error:
        if "--debug" in (sys.argv if arguments is None else arguments):
            traceback.print_exc()
        print(f"{program}: error: {_sentence(error)}", file=sys.stderr)
        asked = isinstance(error, (UsageError, DataError)) or getattr(error, "errno", 0) == errno.ENAMETOOLONG
        return 2 if asked else 1
    return 0


def _sentence(error: Exception) -> str:
    """What an exception says; the operating system's errors name their file in an order of their own."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
