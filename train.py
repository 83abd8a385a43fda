"""Train a network of the paper: `python train.py --help`.

Everything below the command line is a pure function of a `TrainState`.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from data import DataError, Dataset, Scale, standardise
from layca_optax import alpha_learning_rates, describe, layer_depths, layer_rotation
from models import PureModel, pure
from training.checkpoints import Checkpoints
from training.config import Config, Flags, UsageError
from training.optimizer import Hyperparameters, drop_schedule, make_optimizer
from training.report import Progress, plot_rotation, rotation_table
from training.run_folder import RunFolder, new_run_path
from training.tasks import TASKS


class TrainState(NamedTuple):
    """All that changes during training."""

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: optax.OptState


class Metrics(NamedTuple):
    """Means over images."""

    loss: jax.Array
    accuracy: jax.Array


class Program(NamedTuple):
    """The jitted functions of a run. Runs that differ in `Hyperparameters`, seed and data share them.

    `depths` has every parameter's position in the forward pass, `layers` the paths of those that rotate, in
    that order.
    """

    depths: Any
    layers: tuple[str, ...]
    init: Callable[..., TrainState]
    train_epoch: Callable[..., tuple[TrainState, Metrics]]
    evaluate: Callable[..., Metrics]
    rotation: Callable[..., dict[str, jax.Array]]


def loss_and_metrics(
    model: PureModel, params: Any, model_state: Any, images: jax.Array, labels: jax.Array, *, train: bool
) -> tuple[jax.Array, tuple[Metrics, Any]]:
    """Mean cross-entropy of standardised images, and beside it the metrics and the new model state."""
    logits, model_state = model.apply(params, model_state, images, train=train)
    loss = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
    accuracy = jnp.mean(jnp.argmax(logits, axis=-1) == labels)
    return loss, (Metrics(loss, accuracy), model_state)


def train_step(
    model: PureModel,
    optimizer: optax.GradientTransformationExtraArgs,
    state: TrainState,
    images: jax.Array,
    labels: jax.Array,
) -> tuple[TrainState, Metrics]:
    """One step on one batch."""
    gradient = jax.grad(partial(loss_and_metrics, model, train=True), has_aux=True)
    gradients, (metrics, model_state) = gradient(state.params, state.model_state, images, labels)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(state.step + 1, params, model_state, opt_state), metrics


def evaluate(model: PureModel, state: TrainState, images: jax.Array, labels: jax.Array) -> Metrics:
    """Metrics on images that are not trained on, with batch-norm's running statistics."""
    _, (metrics, _) = loss_and_metrics(model, state.params, state.model_state, images, labels, train=False)
    return metrics


@lru_cache
def compile_program(
    task_name: str, optimizer_name: str, with_layca: bool, batch_size: int, epochs: int
) -> Program:
    """The functions of a run, compiled when first called and then shared by all runs with these arguments."""
    task = TASKS[task_name]
    model = pure(task.build)
    steps = task.train_size // batch_size
    schedule = drop_schedule(task.drops, task.factor, epochs, steps)
    depths = layer_depths(
        lambda params, model_state, images: model.apply(params, model_state, images, train=True)[0],
        *jax.eval_shape(model.init, jax.random.key(0)),
        jax.ShapeDtypeStruct((batch_size, *task.input_shape), jnp.float32),
    )
    paths = jax.tree_util.tree_leaves_with_path(depths)
    by_depth = sorted(
        (depth, jax.tree_util.keystr(path, simple=True, separator="/")) for path, depth in paths
    )

    def optimizer(numbers: Hyperparameters) -> optax.GradientTransformationExtraArgs:
        return make_optimizer(optimizer_name, with_layca, numbers, depths, schedule)

    def init(seed: jax.Array, numbers: Hyperparameters) -> TrainState:
        params, model_state = model.init(jax.random.fold_in(jax.random.key(seed), 0))
        return TrainState(jnp.zeros([], jnp.int32), params, model_state, optimizer(numbers).init(params))

    def train_epoch(
        state: TrainState,
        images: jax.Array,
        labels: jax.Array,
        scale: Scale,
        seed: jax.Array,
        numbers: Hyperparameters,
    ) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), state.step // steps)
        # The images that do not fill a batch sit out an epoch; which ones they are changes every epoch.
        order = jax.random.permutation(key, len(labels))[: steps * batch_size].reshape(steps, batch_size)
        step = partial(train_step, model, optimizer(numbers))
        state, metrics = jax.lax.scan(
            lambda state, rows: step(state, standardise(images[rows], scale), labels[rows]), state, order
        )
        return state, jax.tree.map(jnp.mean, metrics)

    def evaluate_bytes(state: TrainState, images: jax.Array, labels: jax.Array, scale: Scale) -> Metrics:
        return evaluate(model, state, standardise(images, scale), labels)

    return Program(
        depths=depths,
        layers=tuple(path for depth, path in by_depth if depth >= 0),
        init=jax.jit(init),
        train_epoch=jax.jit(train_epoch, donate_argnums=0),
        evaluate=jax.jit(evaluate_bytes),
        rotation=jax.jit(layer_rotation),
    )


def fit(
    program: Program,
    numbers: Hyperparameters,
    data: Dataset,
    *,
    seed: int,
    epochs: int,
    evaluate_every: int = 1,
    state: TrainState | None = None,
    epochs_done: int = 0,
) -> Iterator[tuple[TrainState, dict[str, Any]]]:
    """Trains and yields the state and a record of metrics after every epoch.

    The next epoch donates the state that was yielded: use or copy it before going on. To continue a run,
    pass its `state` after `epochs_done` epochs.
    """
    key = np.uint32(seed)
    initial = program.init(key, numbers)
    # A copy, because the first epoch donates its state and the reference is needed to the end.
    state = jax.tree.map(jnp.copy, initial) if state is None else state
    train, test, scale = jax.device_put((data[:2], data[2:4], data.scale))
    for epoch in range(epochs_done + 1, epochs + 1):
        started = time.perf_counter()
        state, metrics = program.train_epoch(state, *train, scale, key, numbers)
        look = epoch in (1, epochs) or epoch % evaluate_every == 0
        test_accuracy = program.evaluate(state, *test, scale).accuracy if look else None
        rotation = program.rotation(state.params, initial.params)
        metrics, test_accuracy, rotation = jax.device_get((metrics, test_accuracy, rotation))
        record = {
            "epoch": epoch,
            "train_loss": _number(metrics.loss),
            "train_accuracy": _number(metrics.accuracy),
            "test_accuracy": _number(test_accuracy),
            "seconds": time.perf_counter() - started,
            "rotation": {layer: _number(rotation[layer]) for layer in program.layers},
        }
        yield state, record


def _number(value: Any) -> float | None:
    """JSON has no NaN and no infinity; what was not measured or is not finite becomes null there."""
    return float(value) if value is not None and math.isfinite(value) else None


def describe_task(config: Config, program: Program) -> str:
    """The table of leaves of a task's network, from shapes alone."""
    params = jax.eval_shape(program.init, np.uint32(0), _hyperparameters(config)).params
    rates = alpha_learning_rates(config.learning_rate, config.alpha, program.depths)
    rotate = "layer" if config.layca else lambda path, leaf: None
    return describe(params, rotate=rotate, learning_rate=rates)


def run(config: Config, folder: RunFolder, *, overwrite: bool = False) -> float | None:
    """Trains as `config` says, keeps what comes of it in `folder`, returns the test accuracy."""
    task = TASKS[config.task]
    program = compile_program(config.task, config.optimizer, config.layca, config.batch_size, config.epochs)
    numbers = _hyperparameters(config)
    data = task.load(seed=config.seed)
    folder.prepare(config, overwrite=overwrite)
    with Checkpoints(folder.checkpoints) as checkpoints:
        done = checkpoints.latest_epoch() or 0
        state = None
        if done:
            state = checkpoints.restore(done, jax.eval_shape(program.init, np.uint32(config.seed), numbers))
        records = folder.keep_metrics(done)
        progress = Progress(config.epochs, done)
        save_every = max(1, config.epochs // 10)
        for new_state, record in fit(
            program,
            numbers,
            data,
            seed=config.seed,
            epochs=config.epochs,
            evaluate_every=task.evaluate_every,
            state=state,
            epochs_done=done,
        ):
            folder.append_metrics(record)
            records.append(record)
            if record["epoch"] == config.epochs or record["epoch"] % save_every == 0:
                checkpoints.save(record["epoch"], new_state)
            progress.show(record)
        progress.close()
    plot_rotation(title(config), records, folder.rotation_plot)
    print(rotation_table(records[-1]["rotation"]))
    print(f"run in {folder.path}")
    return records[-1]["test_accuracy"]


def title(config: Config) -> str:
    """What the run is, in a line."""
    return f"{config.task}, {config.optimizer} {'with' if config.layca else 'without'} Layca"


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    try:
        flags = tyro.cli(Flags, args=arguments, prog="train.py")
        folder = None if flags.out is None else RunFolder(flags.out)
        stored = folder.read_config() if flags.resume and folder is not None else None
        if stored is not None:
            # What the command line leaves out is as the run was started.
            flags = tyro.cli(Flags, args=arguments, prog="train.py", default=Flags(**asdict(stored)))
        config = flags.resolved()
        if flags.describe:
            program = compile_program(
                config.task, config.optimizer, config.layca, config.batch_size, config.epochs
            )
            print(describe_task(config, program))
            return 0
        folder = folder or RunFolder(new_run_path(config.task))
        folder.refuse_unless_free(config, resume=flags.resume, overwrite=flags.overwrite)
        if config.weight_decay and config.layca and config.optimizer == "sgd":
            print(
                "note: behind plain SGD, Layca projects weight decay away again: it has no effect on kernels"
            )
        accuracy = run(config, folder, overwrite=flags.overwrite)
    except (UsageError, DataError) as error:
        print(f"train.py: error: {error}", file=sys.stderr)
        return 2
    print(f"test accuracy {math.nan if accuracy is None else accuracy:.4f}")
    return 0


def _hyperparameters(config: Config) -> Hyperparameters:
    return Hyperparameters(config.learning_rate, config.alpha, config.weight_decay)


if __name__ == "__main__":
    sys.exit(main())
