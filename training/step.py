"""Trains on a batch and on all batches of an epoch: pure functions of a `TrainState`."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from data import Scale, standardise
from data.augment import augment
from layca_optax import layer_depths, layer_rotation
from models import PureModel, pure
from training.config import Config
from training.optimizer import Hyperparameters, MakeOptimizer, drop_schedule, make_optimizer
from training.parallel import Devices, Rows, matmul_precision
from training.tasks import TASKS

EVALUATION_BATCH = 1000


class TrainState(NamedTuple):
    """Holds all that changes during training."""

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: optax.OptState


class Metrics(NamedTuple):
    """Holds sums over images: their losses, how many are classified correctly, how many there are."""

    loss: jax.Array
    correct: jax.Array
    images: jax.Array

    def __add__(self, other: "Metrics") -> "Metrics":  # pyrefly: ignore[bad-override]
        return Metrics(*map(jnp.add, self, other))


def loss_and_metrics(
    model: PureModel, params: Any, model_state: Any, images: jax.Array, labels: jax.Array, *, train: bool
) -> tuple[jax.Array, tuple[Metrics, Any]]:
    """Returns the mean cross-entropy, the metrics and the new model state. Labels of -1 do not count."""
    # The backward pass has the precision of the forward pass.
    with jax.default_matmul_precision(matmul_precision()):
        logits, model_state = model.apply(params, model_state, images, train=train)
    counts = labels >= 0
    losses = jnp.where(counts, optax.softmax_cross_entropy_with_integer_labels(logits, labels), 0)
    correct = counts & (jnp.argmax(logits, axis=-1) == labels)
    metrics = Metrics(jnp.sum(losses), jnp.sum(correct), jnp.sum(counts))
    return metrics.loss / metrics.images, (metrics, model_state)


def train_step(
    model: PureModel,
    optimizer: optax.GradientTransformationExtraArgs,
    state: TrainState,
    images: jax.Array,
    labels: jax.Array,
) -> tuple[TrainState, Metrics]:
    """Returns the state after one step on one batch, and the metrics of the batch."""
    gradient = jax.grad(partial(loss_and_metrics, model, train=True), has_aux=True)
    gradients, (metrics, model_state) = gradient(state.params, state.model_state, images, labels)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(state.step + 1, params, model_state, opt_state), metrics


def evaluate(model: PureModel, state: TrainState, images: jax.Array, labels: jax.Array) -> Metrics:
    """Returns metrics of images that are not trained on, with the running statistics of batch-norm."""
    _, (metrics, _) = loss_and_metrics(model, state.params, state.model_state, images, labels, train=False)
    return metrics


def over_batches(step: Callable[..., Any], out_shardings: Any = None) -> Callable[..., Any]:
    """Turns `step(carry, rows, *args) -> carry` into `loop(carry, batches, *args) -> carry`.

    `batches` holds one array of row numbers per step. `carry` is donated. The returned function keeps what
    it compiled.
    """
    if jax.default_backend() == "cpu":
        # Inside a loop body XLA's CPU backend leaves backward convolutions in layouts that its fast path does
        # not take: a step in `lax.scan` takes about six times as long.
        one = jax.jit(
            lambda carry, batches, i, *args: step(carry, batches[i], *args),
            donate_argnums=0,
            out_shardings=out_shardings,
        )

        def loop(carry: Any, batches: jax.Array, *args: Any) -> Any:
            for i in range(len(batches)):
                carry = one(carry, batches, np.int32(i), *args)
            return carry

        return loop

    def scan(carry: Any, batches: jax.Array, *args: Any) -> Any:
        return jax.lax.scan(lambda carry, rows: (step(carry, rows, *args), None), carry, batches)[0]

    return jax.jit(scan, donate_argnums=0, out_shardings=out_shardings)


def shuffled(key: jax.Array, num_rows: int, batch_size: int) -> jax.Array:
    """Returns row numbers in random order, (steps, batch size), without those that do not fill a batch."""
    steps = num_rows // batch_size
    return jax.random.permutation(key, num_rows)[: steps * batch_size].reshape(steps, batch_size)


def in_order(num_rows: int, batch_size: int) -> np.ndarray:
    """Returns all row numbers in order, (steps, batch size), int32; the last batch is filled up with -1."""
    steps = -(-num_rows // batch_size)
    rows = np.arange(steps * batch_size, dtype=np.int32)
    return np.where(rows < num_rows, rows, np.int32(-1)).reshape(steps, batch_size)


def gathering(model: PureModel, devices: Devices) -> PureModel:
    """Returns the model for sharded parameters: it gathers them and scatters their gradients.

    Every device then computes whole layers for its own images. Left to itself, XLA moves activations instead,
    which are larger.
    """
    constrain = jax.lax.with_sharding_constraint

    @jax.custom_vjp
    def gather(params: Any) -> Any:
        return constrain(params, devices.replicated)

    def scatter(_: None, gradients: Any) -> tuple[Any]:
        return (constrain(gradients, devices.of_state(gradients)),)

    gather.defvjp(lambda params: (gather(params), None), scatter)

    def apply(params: Any, model_state: Any, images: jax.Array, *, train: bool) -> tuple[jax.Array, Any]:
        images = constrain(images, devices.rows)
        logits, model_state = model.apply(gather(params), model_state, images, train=train)
        return constrain(logits, devices.rows), model_state

    return model._replace(apply=apply)


class Program:
    """Holds the jitted functions of a run. Runs that differ in `Hyperparameters`, seed and data share them.

    Attributes:
      model: the network; it gathers its parameters if they are sharded.
      depths: per parameter its position in the forward pass, -1 if it does not rotate.
      layers: the paths of the parameters that rotate, in the order of the forward pass.
      init: `init(seed, hparams)` returns the first state.
      rotation: `layer_rotation`.
    """

    def __init__(self, config: Config, devices: Devices, make: MakeOptimizer = make_optimizer) -> None:
        self._config, self._devices, self._make = config, devices, make
        self._task = TASKS[config.task]
        model = pure(self._task.build)
        self.model = gathering(model, devices) if devices.shard_params else model
        self._num_rows = self._task.num_training_images(config.validation)
        self._steps = self._num_rows // config.batch_size
        self.depths = layer_depths(
            lambda params, model_state, images: model.apply(params, model_state, images, train=True)[0],
            *jax.eval_shape(model.init, jax.random.key(0)),
            jax.ShapeDtypeStruct((config.batch_size, *self._task.input_shape), jnp.float32),
        )
        paths = jax.tree_util.tree_leaves_with_path(self.depths)
        by_depth = sorted(
            (depth, jax.tree_util.keystr(path, simple=True, separator="/")) for path, depth in paths
        )
        self.layers = tuple(path for depth, path in by_depth if depth >= 0)
        shapes = jax.eval_shape(self._init, np.uint32(0), Hyperparameters(0.0, 0.0, 0.0))
        shardings, replicated = devices.of_state(shapes), devices.replicated
        self.init: Callable[..., TrainState] = jax.jit(self._init, out_shardings=shardings)
        self.rotation: Callable[..., dict[str, jax.Array]] = jax.jit(layer_rotation, out_shardings=replicated)
        zeros = lambda: Metrics(jnp.float32(0), jnp.int32(0), jnp.int32(0))
        self._zeros = jax.jit(zeros, out_shardings=replicated)
        self._order = jax.jit(self._shuffled, out_shardings=replicated)
        self._train_all = over_batches(self._train_on, (shardings, replicated))
        self._evaluate_all = over_batches(self._evaluate_on, replicated)

    def train_epoch(
        self, state: TrainState, split: Rows, scale: Scale, seed: Any, hparams: Hyperparameters
    ) -> tuple[TrainState, Metrics]:
        """Returns the state after an epoch, and metrics of its batches; donates the state."""
        batches = self._order(seed, state.step // self._steps)
        return self._train_all((state, self._zeros()), batches, split, scale, seed, hparams)

    def evaluate(self, state: TrainState, split: Rows, num_rows: int, scale: Scale) -> Metrics:
        """Returns metrics of the first `num_rows` images of a split."""
        size = min(EVALUATION_BATCH, num_rows)
        rows = in_order(num_rows, size + -size % self._devices.mesh.size)
        return self._evaluate_all(self._zeros(), rows, state, split, scale)

    def _optimizer(self, hparams: Hyperparameters) -> optax.GradientTransformationExtraArgs:
        drops, factor = self._config.schedule()
        schedule = drop_schedule([drop * self._steps for drop in drops], factor)
        return self._make(self._config.optimizer, self._config.layca, hparams, self.depths, schedule)

    def _init(self, seed: jax.Array, hparams: Hyperparameters) -> TrainState:
        params, model_state = self.model.init(_key(seed, "init"))
        opt_state = self._optimizer(hparams).init(params)
        return TrainState(jnp.zeros([], jnp.int32), params, model_state, opt_state)

    def _shuffled(self, seed: jax.Array, epoch: jax.Array) -> jax.Array:
        key = jax.random.fold_in(_key(seed, "order"), epoch)
        return shuffled(key, self._num_rows, self._config.batch_size)

    def _batch(self, split: Rows, rows: jax.Array) -> Rows:
        images, labels = split
        both = images[rows], jnp.where(rows < 0, -1, labels[rows])
        return jax.lax.with_sharding_constraint(both, self._devices.rows)

    def _train_on(
        self,
        carry: tuple[TrainState, Metrics],
        rows: jax.Array,
        split: Rows,
        scale: Scale,
        seed: Any,
        hparams: Hyperparameters,
    ) -> tuple[TrainState, Metrics]:
        state, metrics = carry
        images, labels = self._batch(split, rows)
        key = jax.random.fold_in(_key(seed, "augment"), state.step)
        images = augment(key, images, flip=self._task.flip, max_shift=self._task.max_shift)
        images = standardise(images, scale)
        state, more = train_step(self.model, self._optimizer(hparams), state, images, labels)
        return state, metrics + more

    def _evaluate_on(
        self, metrics: Metrics, rows: jax.Array, state: TrainState, split: Rows, scale: Scale
    ) -> Metrics:
        images, labels = self._batch(split, rows)
        return metrics + evaluate(self.model, state, standardise(images, scale), labels)


def compile_program(config: Config, devices: Devices, make: MakeOptimizer = make_optimizer) -> Program:
    """Returns the functions of a run. They compile at their first call, once for all runs that share them."""
    same = replace(config, learning_rate=0.0, alpha=0.0, weight_decay=0.0, seed=0, data_dir=None)
    return _compile_program(same, devices, make)


_compile_program = lru_cache(Program)


def _key(seed: Any, purpose: str) -> jax.Array:
    """Returns a random key per purpose; keys of different purposes are independent."""
    return jax.random.fold_in(jax.random.key(seed), ("init", "order", "augment").index(purpose))
