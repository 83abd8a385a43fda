"""Tests the six optimizers against Keras' formulas in float64, with and without Layca."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest

from experiments.tuned import DECAY, adamw
from training.optimizer import DIRECTIONS, Hyperparameters, drop_schedule, make_optimizer

EPSILON = 1e-7


def keras_directions(name, gradients):
    """Returns the steps by the formulas of Keras' documentation, divided by the negative learning rate."""
    first, second, directions = 0.0, 0.0, []
    for t, g in enumerate(gradients, start=1):
        match name:
            case "sgd":
                step = g
            case "momentum":
                step = first = 0.9 * first + g
            case "sgd_amom":
                step = first = 0.9 * first + 0.1 * g
            case "rmsprop":
                second = 0.9 * second + 0.1 * g**2
                step = g / (np.sqrt(second) + EPSILON)
            case "adagrad":
                second = second + g**2
                step = g / (np.sqrt(second) + EPSILON)
            case "adam":
                first = 0.9 * first + 0.1 * g
                second = 0.999 * second + 0.001 * g**2
                rate = np.sqrt(1 - 0.999**t) / (1 - 0.9**t)  # Keras 2.1: `lr_t`
                step = rate * first / (np.sqrt(second) + EPSILON)
        directions.append(step)
    return directions


def trained(name, with_layca, gradients, params, numbers, depths, steps_schedule=lambda count: 1.0):
    optimizer = make_optimizer(name, with_layca, numbers, depths, steps_schedule)
    state, history = optimizer.init(params), [params]
    update = jax.jit(optimizer.update)
    for gradient in gradients:
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        history.append(params)
    return history


@pytest.fixture(scope="module")
def gradients():
    return np.random.default_rng(0).normal(size=(6, 4, 5))


# With gradients of 1e-6 it matters where epsilon, 1e-7, is added.
@pytest.mark.parametrize("scale", [1.0, 1e-6])
@pytest.mark.parametrize("name", DIRECTIONS)
def test_without_layca_the_steps_are_those_of_keras(name, scale, gradients):
    gradients = scale * gradients
    w = np.random.default_rng(1).normal(size=(4, 5))
    numbers = Hyperparameters(learning_rate=0.01, alpha=0.0, weight_decay=0.0)
    history = trained(
        name, False, [{"k": jnp.float32(g)} for g in gradients], {"k": jnp.float32(w)}, numbers, {"k": 0}
    )
    for step, direction in enumerate(keras_directions(name, gradients)):
        w = w - 0.01 * direction
        np.testing.assert_allclose(history[step + 1]["k"], w, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", DIRECTIONS)
def test_layca_turns_each_layer_by_its_rate_in_the_direction_of_the_optimizer(name, gradients):
    rng = np.random.default_rng(1)
    initial = {"a": rng.normal(size=(4, 5)), "b": rng.normal(size=(4, 5))}
    numbers = Hyperparameters(learning_rate=0.1, alpha=-0.2, weight_decay=0.0)
    schedule = drop_schedule([3], 0.2)
    history = trained(
        name,
        True,
        [{k: jnp.float32(g) for k in initial} for g in gradients],
        jax.tree.map(jnp.float32, initial),
        numbers,
        {"a": 1, "b": 0},
        schedule,
    )
    weights = dict(initial)
    for step, direction in enumerate(keras_directions(name, gradients)):
        for layer, multiplier in (("a", 0.8**5), ("b", 1.0)):
            rate = 0.1 * multiplier * (0.2 if step >= 3 else 1.0)
            weights[layer] = oracle.layca_step(weights[layer], -direction, initial[layer], rate)
            np.testing.assert_allclose(history[step + 1][layer], weights[layer], rtol=1e-4, atol=1e-5)
            turned = oracle.angle(history[step][layer], history[step + 1][layer])
            assert turned == pytest.approx(np.arctan(rate), rel=2e-5)


def test_weight_decay_is_that_of_keras_and_applies_to_kernels_only():
    params = {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.full(2, 2.0)}
    zero = jax.tree.map(jnp.zeros_like, params)
    numbers = Hyperparameters(learning_rate=0.1, alpha=0.0, weight_decay=0.25)
    after = trained("sgd", False, [zero], params, numbers, {"kernel": 0, "bias": -1})[-1]
    np.testing.assert_allclose(after["kernel"], 2.0 - 0.1 * 2 * 0.25 * 2.0)
    np.testing.assert_array_equal(after["bias"], params["bias"])


def test_drops_at_the_same_step_multiply():
    schedule = drop_schedule([48 * 8, 54 * 8], 0.2)
    for step, expected in [(0, 1), (48 * 8 - 1, 1), (48 * 8, 0.2), (54 * 8 - 1, 0.2), (54 * 8, 0.04)]:
        assert float(schedule(step)) == pytest.approx(expected)
    short = drop_schedule([8, 8], 0.2)
    assert float(short(7)) == 1
    assert float(short(8)) == pytest.approx(0.04)


def test_adamw_decays_kernels_separately_from_its_moments(gradients):
    rng = np.random.default_rng(1)
    initial = {"kernel": rng.normal(size=(4, 5)), "bias": rng.normal(size=(4, 5))}
    numbers = Hyperparameters(learning_rate=0.01, alpha=0.0, weight_decay=0.0)
    optimizer = adamw("adam", False, numbers, {"kernel": 0, "bias": -1}, drop_schedule([3], 0.2))
    params = jax.tree.map(jnp.float32, initial)
    state, weights = optimizer.init(params), dict(initial)
    for step, (g, direction) in enumerate(zip(gradients, keras_directions("adam", gradients), strict=True)):
        both = dict.fromkeys(params, jnp.float32(g))
        updates, state = optimizer.update(both, state, params)
        params = optax.apply_updates(params, updates)
        rate = 0.01 * (0.2 if step >= 3 else 1.0)
        weights["kernel"] = weights["kernel"] * (1 - rate * DECAY) - rate * direction
        weights["bias"] = weights["bias"] - rate * direction
    for name, expected in weights.items():
        np.testing.assert_allclose(params[name], expected, rtol=2e-5, atol=1e-6)
