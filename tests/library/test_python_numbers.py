"""Tests that Python numbers among the parameters count as scalars."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from layca_optax import (
    describe,
    layca,
    layer_depths,
    layer_rotation,
    rebase,
    rotation_report,
    skip_nonfinite,
    track_rotation,
)

PARAMS = {"w": jnp.eye(2), "t": 1.0, "n": 3, "z": 2j, "on": True}
GRADIENTS = {"w": jnp.ones((2, 2)), "t": 4.0, "n": 0, "z": jnp.array(3j), "on": False}
ARRAYS = jax.tree.map(jnp.asarray, PARAMS)


@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize(
    ("others", "t", "z"),
    [(None, -0.4, -0.3j), (optax.set_to_zero(), 0.0, 0.0), (optax.sgd(0.5), -2.0, -1.5j)],
)
def test_they_take_the_step_of_leaves_that_do_not_rotate(others, t, z, jitted):
    optimizer = layca(0.1, others=others)
    update = jax.jit(optimizer.update) if jitted else optimizer.update
    updates, _ = update(GRADIENTS, optimizer.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["t"], t, rtol=1e-6)
    np.testing.assert_allclose(updates["z"], z, rtol=1e-6)
    assert (updates["n"], updates["on"]) == (0, False)
    expected, _ = optimizer.update(GRADIENTS, optimizer.init(ARRAYS), ARRAYS)
    np.testing.assert_array_equal(updates["w"], expected["w"])
    new = optax.apply_updates(PARAMS, updates)
    np.testing.assert_allclose(new["t"], 1 + t, rtol=1e-6)


def test_everything_takes_them():
    assert describe(PARAMS, learning_rate=0.1) == describe(ARRAYS, learning_rate=0.1)
    assert "t     scalar        -  plain step  0.1" in describe(PARAMS, learning_rate=0.1)
    optimizer = optax.chain(layca(0.1), track_rotation())
    _, state = optimizer.update(GRADIENTS, optimizer.init(PARAMS), PARAMS)
    assert rotation_report(state).keys() == {"w"}
    assert rotation_report(rebase(state, PARAMS)).keys() == {"w"}
    assert layer_rotation(PARAMS, PARAMS).keys() == {"w"}
    depths = layer_depths(lambda p, x: x @ p["w"] * p["t"], PARAMS, jnp.ones((1, 2)))
    assert depths == {"w": 0, "t": -1, "n": -1, "z": -1, "on": -1}


def test_a_rule_sees_them_as_scalars():
    seen = {}
    layca(rotate=lambda path, leaf: seen.update({path: (leaf.ndim, leaf.shape)})).init(PARAMS)
    assert seen == {"w": (2, (2, 2)), "t": (0, ()), "z": (0, ())}


@pytest.mark.parametrize(("gradient", "skips"), [(float("nan"), True), (0.0, True), (1.0, False)])
def test_they_skip_steps(gradient, skips):
    optimizer = skip_nonfinite(layca(0.1), zeros=True)
    updates, state = optimizer.update({**GRADIENTS, "t": gradient}, optimizer.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["t"], 0 if skips else -0.1, rtol=1e-6)
    assert int(state.skipped_steps["t"]) + int(state.zero_steps["t"]) == skips


class WithTemperature(nnx.Module):
    def __init__(self):
        self.linear = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
        self.temperature = nnx.Param(2.0)

    def __call__(self, x):
        return self.linear(x) * self.temperature[...]


@pytest.mark.parametrize("others", [None, optax.set_to_zero()])
def test_a_flax_variable_of_a_number(others):
    model = WithTemperature()
    assert "temperature    scalar        -  plain step" in describe(nnx.state(model, nnx.Param))
    tx = optax.chain(layca(0.1, others=others), track_rotation())
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    loss = lambda model: jnp.sum(model(jnp.ones((1, 3))))
    slope = float(jnp.sum(model.linear(jnp.ones((1, 3)))))
    nnx.jit(lambda model, optimizer: optimizer.update(model, nnx.grad(loss)(model)))(model, optimizer)
    expected = 2.0 if others else 2.0 - 0.1 * slope
    np.testing.assert_allclose(model.temperature[...], expected, rtol=1e-6)
    assert rotation_report(optimizer.opt_state)["linear/kernel"]["last_step"] == pytest.approx(np.arctan(0.1))
