"""Trains a network of the paper: `python train.py --help`.

`main` reads the flags, `run` trains a run in its folder, and `fit` is the loop over epochs. Its steps are in
`training/step.py`.
"""

import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from typing import Any, cast

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Ctrl-C shows no traceback, also while modules are imported, which takes seconds. A run saves its state.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import jax
import numpy as np

from data import Dataset
from layca_optax import alpha_learning_rates, describe
from training.config import Config, Flags, flag, parse
from training.errors import exit_code
from training.optimizer import MakeOptimizer, make_optimizer, skipped_steps
from training.parallel import (
    Devices,
    Placed,
    all_devices,
    check_devices,
    matmul_precision,
    place,
    warn_of_idle_gpu,
)
from training.processes import (
    agree,
    alone,
    on_primary,
    only_primary_prints,
    start_distributed,
)
from training.run import Session
from training.run_folder import Record, RunFolder, final_accuracy, finite, new_run_path
from training.step import Metrics, TrainState, compile_program
from training.tasks import TASKS, stop_reason

# Returns more fields for the record of an epoch, from the state after it.
Look = Callable[[TrainState], Mapping[str, object]]


def fit(
    config: Config,
    data: Dataset | Placed,
    *,
    devices: Devices | None = None,
    state: TrainState | None = None,
    history: Sequence[Record] = (),
    evaluate_every: int | None = None,
    optimizer: MakeOptimizer = make_optimizer,
) -> Iterator[tuple[TrainState, Record]]:
    """Trains, and yields the state and a record of metrics after every epoch.

    The next epoch donates the state that was yielded: use or copy it before. Training ends early by the rule
    of the task.

    Args:
      config: the run.
      data: a dataset, or one that is on the devices already and that several runs share.
      devices: what to train on; by default all devices.
      state: the last state of the run to continue.
      history: the records of the run to continue.
      evaluate_every: epochs between two evaluations; by default those of the task.
      optimizer: is called with the arguments of `make_optimizer`.
    """
    task = TASKS[config.task]
    devices = devices or all_devices()
    program = compile_program(config, devices, optimizer)
    hparams, seed = config.hparams(), np.uint32(config.seed)
    reference = program.init(seed, hparams).params
    state = program.init(seed, hparams) if state is None else state

    if not isinstance(data, Placed):
        data = place(data, devices, config.seed if config.validation else None)
    records = list(history)
    for epoch in range(len(records) + 1, config.epochs + 1):
        if stop_reason(task.stop, records):
            return
        started = time.perf_counter()
        state, metrics = program.train_epoch(state, data.train, data.scale, seed, hparams)
        record: Any = {"epoch": epoch, "train_loss": _mean(metrics.loss, metrics)}
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
        record |= {"device": devices.describe(), "matmul_precision": matmul_precision()}
        if config.schedule_epochs is not None:
            record["schedule_epochs"] = config.schedule_epochs
        records.append(record)
        yield state, record


def _mean(total: jax.Array, metrics: Metrics) -> float | None:
    return finite(float(total) / float(metrics.images))


def nothing_more(state: TrainState) -> Mapping[str, object]:
    """Adds nothing to a record."""
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
    """Trains from the newest good state of a session on; `look` adds fields to the record of every epoch."""
    program = compile_program(config, devices, optimizer)
    state = session.restore(devices.abstract(jax.eval_shape(program.init, np.uint32(0), config.hparams())))
    for new, record in fit(
        config,
        data,
        devices=devices,
        state=state,
        history=session.records,
        evaluate_every=evaluate_every,
        optimizer=optimizer,
    ):
        session.log_and_checkpoint(new, cast(Record, {**record, **look(new)}))


def describe_task(config: Config) -> str:
    """Returns the table of the leaves of a network, from shapes alone."""
    program = compile_program(config, all_devices())
    params = jax.eval_shape(program.init, np.uint32(0), config.hparams()).params
    rates = alpha_learning_rates(config.learning_rate, config.alpha, program.depths)
    rotate = "layer" if config.layca else lambda path, leaf: None
    return describe(params, rotate=rotate, learning_rate=rates)


def run(
    config: Config, folder: RunFolder, *, overwrite: bool = False, devices: Devices | None = None
) -> float | None:
    """Trains a run, keeps it in its folder, and returns the test accuracy.

    Raises:
      Interrupted: after SIGTERM, SIGHUP or Ctrl-C, with the state saved.
    """
    task, devices = TASKS[config.task], devices or all_devices()
    warn_of_idle_gpu()
    if config.weight_decay and config.layca and config.optimizer == "sgd":
        print("note: behind plain SGD, Layca projects weight decay away again: it has no effect on kernels")
    devices.check_batch_size(config.batch_size, task.num_training_images(config.validation))
    data = task.load(seed=config.seed, data_dir=config.data_dir)
    if not alone():
        digest = sha256()
        for array in (data.train_images, data.train_labels, data.test_images, data.test_labels):
            digest.update(array.tobytes())
        agree({"the data, by their sha256": digest.hexdigest()})
    if data.source is not None:
        print(f"data: {data.source}")
    with Session(config, folder, data.source, overwrite=overwrite) as session:
        print(
            f"{config.title()}, on {devices.describe()}; compiling, so the first epoch takes longer",
            flush=True,
        )
        train_in(session, config, data, devices)
        session.close(stop_reason(task.stop, session.records))
    return final_accuracy(session.records)


def read(arguments: list[str] | None = None) -> tuple[Flags, Config, RunFolder]:
    """Turns a command line into a run and its folder; connects with other processes, writes nothing.

    Raises:
      UsageError: what is asked for is not possible.
    """
    flags = parse(Flags, arguments, "train.py")
    started = None
    if flags.resume and flags.out is not None:
        folder = RunFolder(flags.out)
        started = folder.read_config()
        if started is not None:
            # What the command line leaves out is as the run was started.
            default = Flags.of(started, tensorboard=folder.tensorboard.is_dir())
            flags = parse(Flags, arguments, "train.py", default)
    config = flags.resolved(started)
    path = new_run_path(config.task) if flags.out is None else flags.out
    folder = RunFolder(path, with_tensorboard=flags.tensorboard)
    if flags.distributed:
        own = ("data_dir", "start_timeout", "debug")  # in which processes may differ
        settings = asdict(flags) | asdict(config) | {"out": str(path.absolute())}
        facts = {flag(name): value for name, value in settings.items() if name not in own}
        start_distributed(facts | {"the version of jax": jax.__version__}, flags.start_timeout)
    check_devices()
    if not flags.describe:
        on_primary(lambda: folder.refuse_unless_free(config, resume=flags.resume, overwrite=flags.overwrite))
    return flags, config, folder


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line, and returns the exit code: that of `training.errors.exit_code`."""

    def program() -> None:
        flags, config, folder = read(arguments)
        with only_primary_prints():
            if flags.describe:
                print(describe_task(config))
                return
            devices = all_devices(flags.shard_params)
            accuracy = run(config, folder, overwrite=flags.overwrite, devices=devices)
            print(f"test accuracy {math.nan if accuracy is None else accuracy:.4f}")

    return exit_code("train.py", program, arguments)


if __name__ == "__main__":
    sys.exit(main())
