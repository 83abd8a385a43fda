"""One step of Layca, and something to make it with."""

import jax
import jax.numpy as jnp
import numpy as np

from layca_optax import layca


def one_step(w, g, learning_rate=0.1, **kwargs):
    optimizer = layca(learning_rate, **kwargs)
    update, _ = jax.jit(optimizer.update)(g, optimizer.init(w), w)
    return update


def random_pair(shape, seed=0, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.normal(size=shape), dtype) for _ in range(2))
