"""What training does to one batch: pure functions of a `TrainState`."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from models import PureModel
from training.devices import matmul_precision


class TrainState(NamedTuple):
    """All that changes during training."""

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: optax.OptState


class Metrics(NamedTuple):
    """Sums over images: of their losses, of those classified rightly, of all."""

    loss: jax.Array
    correct: jax.Array
    images: jax.Array

    def __add__(self, other: "Metrics") -> "Metrics":  # pyrefly: ignore[bad-override]
        return Metrics(*map(jnp.add, self, other))


def loss_and_metrics(
    model: PureModel, params: Any, model_state: Any, images: jax.Array, labels: jax.Array, *, train: bool
) -> tuple[jax.Array, tuple[Metrics, Any]]:
    """Mean cross-entropy, and beside it the metrics and the new model state. Labels of -1 do not count."""
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
