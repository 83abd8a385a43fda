"""Lists the optimizers of the compliance tests, and has the small problem on which they run."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from layca_optax import layca, sgd_amom, skip_nonfinite, track_rotation


def on(direction, **kwargs):
    return lambda learning_rate: optax.chain(direction, layca(learning_rate, **kwargs))


def around(finished):
    return on(finished, flip_sign=False)


# With five Newton-Schulz steps, the default, sums in another order change float32 results by 2e-5.
MUON = optax.contrib.muon(1.0, ns_steps=2)

# From a learning rate (a number, a traced scalar or a schedule) to an optimizer.
OPTIMIZERS: dict[str, Callable[[optax.ScalarOrSchedule], optax.GradientTransformation]] = {
    "layca": layca,
    "layca on momentum": on(optax.trace(0.9)),
    "layca on nesterov": on(optax.trace(0.9, nesterov=True)),
    "layca on adam": on(optax.scale_by_adam()),
    "layca around adamw": around(optax.adamw(1.0, weight_decay=0.01)),
    "layca on rmsprop": on(optax.scale_by_rms()),
    "layca on adagrad": on(optax.scale_by_rss()),
    "layca on lion": on(optax.scale_by_lion()),
    "layca around muon": around(MUON),
    "layca on sgd_amom": on(optax.ema(0.9, debias=False)),
    "layca by neuron": on(optax.identity(), rotate="neuron", others=optax.adam(0.1)),
    "layca on adam, tracked": lambda learning_rate: optax.chain(
        on(optax.scale_by_adam())(learning_rate), track_rotation()
    ),
    "layca on adam, skipping": lambda learning_rate: skip_nonfinite(on(optax.scale_by_adam())(learning_rate)),
    "sgd_amom": sgd_amom,
}
# The others take minutes.
QUICK = ("layca", "layca on adam, tracked")


def each(names):
    """Parametrizes a test by optimizer, and marks all but a few as slow."""
    marked = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in names]
    return pytest.mark.parametrize("name", marked)


every_optimizer = each(OPTIMIZERS)
every_layca = each(name for name in OPTIMIZERS if name != "sgd_amom")

SHAPES = {"bias": (8,), "kernel": (4, 6), "stack": (2, 3, 4)}
STEPS = 4


def normal(seed):
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in SHAPES.items()}


PARAMS = normal(0)
GRADIENTS = [normal(1 + step) for step in range(STEPS)]


def stacked(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def schedule(count):
    """Returns another rate at every step, so that a wrong counter shows."""
    return 0.2 / (1.0 + count)


class Run(NamedTuple):
    """Holds parameters and states before the first step and after every step."""

    params: list[Any]
    states: list[Any]


def run(optimizer, gradients, params=PARAMS, **extra_args):
    """Trains in a plain loop, outside jit."""
    state = optimizer.init(params)
    result = Run([params], [state])
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, params, **extra_args)
        params = optax.apply_updates(params, updates)
        result.params.append(params)
        result.states.append(state)
    return result


@functools.cache
def reference(name):
    """Returns what every wrapper and transformation must reproduce."""
    return run(OPTIMIZERS[name](schedule), GRADIENTS)


def assert_close(actual, expected):
    """Checks equality up to the order of float32 sums."""
    chex.assert_trees_all_close(actual, expected, rtol=1e-5, atol=2e-6)
