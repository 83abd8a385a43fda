import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from layca_optax import sgd_amom


def test_follows_section_a3():
    gradients = np.random.default_rng(0).normal(size=(20, 3, 4))
    w, v = np.ones((3, 4)), np.zeros((3, 4))
    params, optimizer = jnp.ones((3, 4)), sgd_amom(lambda count: 0.1 / (count + 1), momentum=0.8)
    state = optimizer.init(params)
    for step, gradient in enumerate(gradients):
        v = 0.8 * v + 0.2 * gradient
        w = w - 0.1 / (step + 1) * v
        updates, state = jax.jit(optimizer.update)(jnp.float32(gradient), state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params, w, rtol=1e-5)


def test_bad_momentum():
    with pytest.raises(ValueError, match="below 1, not 1"):
        sgd_amom(0.1, momentum=1)
