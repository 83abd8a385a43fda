"""Train a network of the paper: `python train.py --help`.

Everything below the command line is a pure function of a `TrainState`.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from data import Dataset, Scale, standardise
from data.augment import augment
from layca_optax import alpha_learning_rates, describe, layer_depths, layer_rotation
from models import pure
from training.command_line import Request, answer
from training.config import Config
from training.devices import Devices, all_devices, matmul_precision, warn_of_idle_gpu
from training.epochs import in_order, over_batches, shuffled
from training.optimizer import Hyperparameters, drop_schedule, make_optimizer, skipped_steps
from training.placed import Placed, place
from training.records import final_accuracy, finite
from training.run_folder import RunFolder
from training.session import Session
from training.step import Metrics, TrainState, evaluate, train_step
from training.stopping import stop_reason
from training.tasks import TASKS

EVALUATION_BATCH = 1000
# What somebody wants to know of the state after every epoch, beside the record.
Look = Callable[[TrainState], Mapping[str, Any]]


class Program(NamedTuple):
    """The jitted functions of a run. Runs that differ in `Hyperparameters`, seed and data share them.

    Attributes:
      depths: every parameter's position in the forward pass, -1 if it does not rotate.
      layers: the paths of the parameters that rotate, in the order of the forward pass.
      init: `init(seed, numbers)` returns the first state.
      train_epoch: `train_epoch(state, part, scale, seed, numbers)` returns the next state and metrics;
        donates the state.
      evaluate: `evaluate(state, part, num_rows, scale)` returns metrics.
      rotation: `layer_rotation`.
    """

    depths: Any
    layers: tuple[str, ...]
    init: Callable[..., TrainState]
    train_epoch: Callable[..., tuple[TrainState, Metrics]]
    evaluate: Callable[..., Metrics]
    rotation: Callable[..., dict[str, jax.Array]]


def compile_program(config: Config, devices: Devices, make: Callable[..., Any] = make_optimizer) -> Program:
    """The functions of a run, compiled when first called and shared by all runs that they can serve."""
    same = {"learning_rate": 0.0, "alpha": 0.0, "weight_decay": 0.0, "seed": 0, "data_dir": None}
    return _compile_program(Config(**{**asdict(config), **same}), devices, make)


@lru_cache
def _compile_program(config: Config, devices: Devices, make: Callable[..., Any]) -> Program:
    task = TASKS[config.task]
    model = pure(task.build)
    num_rows = task.num_training_images(config.validation)
    steps = num_rows // config.batch_size
    drops, factor = task.schedule_with(config.layca, config.epochs)
    schedule = drop_schedule([drop * steps for drop in drops], factor)
    depths = layer_depths(
        lambda params, model_state, images: model.apply(params, model_state, images, train=True)[0],
        *jax.eval_shape(model.init, jax.random.key(0)),
        jax.ShapeDtypeStruct((config.batch_size, *task.input_shape), jnp.float32),
    )
    paths = jax.tree_util.tree_leaves_with_path(depths)
    by_depth = sorted(
        (depth, jax.tree_util.keystr(path, simple=True, separator="/")) for path, depth in paths
    )

    def optimizer(numbers: Hyperparameters) -> optax.GradientTransformationExtraArgs:
        return make(config.optimizer, config.layca, numbers, depths, schedule)

    def init(seed: jax.Array, numbers: Hyperparameters) -> TrainState:
        params, model_state = model.init(_key(seed, "init"))
        return TrainState(jnp.zeros([], jnp.int32), params, model_state, optimizer(numbers).init(params))

    def batch(part: tuple[jax.Array, jax.Array], rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        images, labels = part
        both = images[rows], jnp.where(rows < 0, -1, labels[rows])
        return jax.lax.with_sharding_constraint(both, devices.rows)

    def train_on(carry: Any, rows: jax.Array, part: Any, scale: Scale, seed: Any, numbers: Any) -> Any:
        state, metrics = carry
        images, labels = batch(part, rows)
        key = jax.random.fold_in(_key(seed, "augment"), state.step)
        images = standardise(augment(key, images, flip=task.flip, max_shift=task.max_shift), scale)
        state, more = train_step(model, optimizer(numbers), state, images, labels)
        return state, metrics + more

    def evaluate_on(metrics: Metrics, rows: jax.Array, state: TrainState, part: Any, scale: Scale) -> Metrics:
        images, labels = batch(part, rows)
        return metrics + evaluate(model, state, standardise(images, scale), labels)

    @partial(jax.jit, out_shardings=devices.replicated)
    def zeros() -> Metrics:
        return Metrics(jnp.float32(0), jnp.int32(0), jnp.int32(0))

    @partial(jax.jit, out_shardings=devices.replicated)
    def order(seed: jax.Array, epoch: jax.Array) -> jax.Array:
        return shuffled(jax.random.fold_in(_key(seed, "order"), epoch), num_rows, config.batch_size)

    shapes = jax.eval_shape(init, np.uint32(0), Hyperparameters(0.0, 0.0, 0.0))
    shardings = devices.of_state(shapes)
    train_all = over_batches(train_on, (shardings, devices.replicated))
    evaluate_all = over_batches(evaluate_on, devices.replicated)

    def train_epoch(state: TrainState, part: Any, scale: Scale, seed: Any, numbers: Any) -> Any:
        return train_all((state, zeros()), order(seed, state.step // steps), part, scale, seed, numbers)

    def evaluate_part(state: TrainState, part: Any, num_rows: int, scale: Scale) -> Metrics:
        size = min(EVALUATION_BATCH, num_rows)
        rows = in_order(num_rows, size + -size % devices.mesh.size)
        return evaluate_all(zeros(), rows, state, part, scale)

    return Program(
        depths=depths,
        layers=tuple(path for depth, path in by_depth if depth >= 0),
        init=jax.jit(init, out_shardings=shardings),
        train_epoch=train_epoch,
        evaluate=evaluate_part,
        rotation=jax.jit(layer_rotation, out_shardings=devices.replicated),
    )


def _key(seed: Any, purpose: str) -> jax.Array:
    """Independent random keys for what a run draws."""
    return jax.random.fold_in(jax.random.key(seed), ("init", "order", "augment").index(purpose))


def fit(
    config: Config,
    data: Dataset | Placed,
    *,
    devices: Devices | None = None,
    state: TrainState | None = None,
    history: Sequence[Mapping[str, Any]] = (),
    evaluate_every: int | None = None,
    optimizer: Callable[..., Any] = make_optimizer,
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
    numbers, seed = config.numbers(), np.uint32(config.seed)
    reference = program.init(seed, numbers).params
    state = program.init(seed, numbers) if state is None else state

    if not isinstance(data, Placed):
        data = place(data, devices, config.seed if config.validation else None)
    where = {"device": devices.describe(), "matmul_precision": matmul_precision()}
    records = list(history)
    for epoch in range(len(records) + 1, config.epochs + 1):
        if stop_reason(task.stop, records):
            return
        started = time.perf_counter()
        state, metrics = program.train_epoch(state, data.train, data.scale, seed, numbers)
        record: dict[str, Any] = {"epoch": epoch, "train_loss": _mean(metrics.loss, metrics)}
        record["train_accuracy"] = _mean(metrics.correct, metrics)
        last = epoch == config.epochs or stop_reason(task.stop, [*records, record])
        if last or epoch == 1 or epoch % (evaluate_every or task.evaluate_every) == 0:
            found = {
                name: program.evaluate(state, *part, data.scale) for name, part in data.looked_at.items()
            }
            record |= {name: _mean(metrics.correct, metrics) for name, metrics in found.items()}
        else:
            record |= dict.fromkeys(data.looked_at)
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
    optimizer: Callable[..., Any] = make_optimizer,
    evaluate_every: int | None = None,
    look: Look = nothing_more,
) -> None:
    """Trains from the newest good state of a session on; `look` adds to the record of every epoch."""
    program = compile_program(config, devices, optimizer)
    state = session.restore(devices.abstract(jax.eval_shape(program.init, np.uint32(0), config.numbers())))
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
        session.keep(new, {**record, **look(new)})


def describe_task(config: Config) -> str:
    """The table of leaves of a task's network, from shapes alone."""
    program = compile_program(config, all_devices())
    params = jax.eval_shape(program.init, np.uint32(0), config.numbers()).params
    rates = alpha_learning_rates(config.learning_rate, config.alpha, program.depths)
    rotate = "layer" if config.layca else lambda path, leaf: None
    return describe(params, rotate=rotate, learning_rate=rates)


def run(
    config: Config, folder: RunFolder, *, overwrite: bool = False, devices: Devices | None = None
) -> float | None:
    """Trains as `config` says, keeps what comes of it in `folder`, returns the test accuracy.

    Raises:
      Interrupted: after SIGTERM or Ctrl-C, with the state saved.
    """
    task, devices = TASKS[config.task], devices or all_devices()
    warn_of_idle_gpu()
    devices.check_batch_size(config.batch_size, task.num_training_images(config.validation))
    data = task.load(seed=config.seed, data_dir=config.data_dir)
    if data.source is not None:
        print(f"data: {data.source}")
    with Session(config, folder, data.source, overwrite=overwrite) as session:
        train_in(session, config, data, devices)
        session.finish(stop_reason(task.stop, session.records))
    return final_accuracy(session.records)


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    return answer(arguments, _answer)


def _answer(request: Request) -> None:
    flags, config, folder = request
    if flags.describe:
        print(describe_task(config))
        return
    if config.weight_decay and config.layca and config.optimizer == "sgd":
        print("note: behind plain SGD, Layca projects weight decay away again: it has no effect on kernels")
    accuracy = run(config, folder, overwrite=flags.overwrite, devices=all_devices(flags.shard_params))
    print(f"test accuracy {math.nan if accuracy is None else accuracy:.4f}")


if __name__ == "__main__":
    sys.exit(main())
