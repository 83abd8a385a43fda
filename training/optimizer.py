"""Builds the optimizers of the paper with the defaults of Keras, with and without Layca."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from layca_optax import alpha_learning_rates, layca, skip_nonfinite

EPSILON = 1e-7


def _adagrad() -> optax.GradientTransformation:
    """Returns Keras' Adagrad, `g / (sqrt(sum of g^2) + epsilon)`; optax has epsilon inside the root."""
    inner = optax.scale_by_rss(initial_accumulator_value=0.0)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        _, new = inner.update(updates, state, params)
        squares: Any = optax.tree.get(new, "sum_of_squares")
        return jax.tree.map(lambda g, s: g / (jnp.sqrt(s) + EPSILON), updates, squares), new

    return optax.GradientTransformation(inner.init, update)


def _adam() -> optax.GradientTransformation:
    """Returns Keras' Adam of 2018, which adds epsilon before it corrects the bias of the moments."""
    b1, b2 = 0.9, 0.999
    inner = optax.scale_by_adam(b1=b1, b2=b2)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        _, new = inner.update(updates, state, params)
        count, first, second = (optax.tree.get(new, name) for name in ("count", "mu", "nu"))
        correction = jnp.sqrt(1 - b2**count) / (1 - b1**count)
        return jax.tree.map(lambda m, v: correction * m / (jnp.sqrt(v) + EPSILON), first, second), new

    return optax.GradientTransformation(inner.init, update)


# Directions without a learning rate. Their defaults are those of Keras in 2018: epsilon is 1e-7 and outside
# the root, and accumulators start at 0.
DIRECTIONS: Mapping[str, Callable[[], optax.GradientTransformation]] = MappingProxyType(
    {
        "sgd": optax.identity,
        "momentum": lambda: optax.trace(decay=0.9),
        "rmsprop": lambda: optax.scale_by_rms(decay=0.9, eps=EPSILON, eps_in_sqrt=False),
        "adagrad": _adagrad,
        "adam": _adam,
        "sgd_amom": lambda: optax.ema(0.9, debias=False),
    }
)


class Hyperparameters(NamedTuple):
    """Holds the hyperparameters in which runs of one compiled program may differ."""

    learning_rate: jax.typing.ArrayLike
    alpha: jax.typing.ArrayLike
    weight_decay: jax.typing.ArrayLike


# Called with the arguments of `make_optimizer`; equal functions share what is compiled.
MakeOptimizer = Callable[..., optax.GradientTransformationExtraArgs]


def make_optimizer(
    name: str,
    with_layca: bool,
    hparams: Hyperparameters,
    depths: Any,
    schedule: optax.Schedule,
) -> optax.GradientTransformationExtraArgs:
    """Chains Keras' L2, the direction of the optimizer, and Layca or the plain step, with a rate per layer.

    With Layca, a layer whose gradient is not finite skips the step.

    Args:
      name: a key of `DIRECTIONS`.
      with_layca: whether kernels rotate.
      hparams: learning rate, alpha and Keras' weight decay; may be traced.
      depths: of the parameters, from `layer_depths`.
      schedule: per step the factor that multiplies the learning rate.
    """
    rates = alpha_learning_rates(lambda count: hparams.learning_rate * schedule(count), hparams.alpha, depths)
    is_kernel = jax.tree.map(lambda depth: depth >= 0, depths)
    chain = optax.chain(
        # The gradient of weight_decay * ||w||^2, over kernels only.
        optax.add_decayed_weights(2 * jnp.asarray(hparams.weight_decay), mask=is_kernel),
        DIRECTIONS[name](),
        # A rule under which nothing rotates leaves the plain optimizer with layer-wise rates.
        layca(rates, rotate="layer" if with_layca else lambda path, leaf: None),
    )
    return skip_nonfinite(chain) if with_layca else chain


def skipped_steps(opt_state: optax.OptState) -> dict[str, int]:
    """Counts the steps that each layer has skipped since the run began; layers without any are left out."""
    counts = jax.device_get(optax.tree.get(opt_state, "skipped_steps", {}))
    return {path: int(steps) for path, steps in counts.items() if steps}


def drop_schedule(drops: Sequence[int], factor: float) -> optax.Schedule:
    """Returns a schedule: 1, multiplied by `factor` at each of the steps `drops`, once per entry."""
    return optax.piecewise_constant_schedule(1.0, {step: factor ** drops.count(step) for step in drops})
