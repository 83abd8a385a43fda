"""Makes one step of Layca, or several of any optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from layca_optax import layca


def one_step(w, g, learning_rate=0.1, **kwargs):
    """Returns the update of `layca`."""
    optimizer = layca(learning_rate, **kwargs)
    update, _ = jax.jit(optimizer.update)(g, optimizer.init(w), w)
    return update


def train(optimizer, gradients, params, update=None):
    """Returns parameters and state before the first step and after every step.

    `update` is the jitted update of `optimizer`, where several calls share it.
    """
    update = update or jax.jit(optimizer.update)
    history = [(params, optimizer.init(params))]
    for g in gradients:
        params, state = history[-1]
        updates, state = update(g, state, params)
        history.append((optax.apply_updates(params, updates), state))
    return history


def random_pair(shape, seed=0, dtype=jnp.float32):
    """Returns random weights and a random gradient."""
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.normal(size=shape), dtype) for _ in range(2))
