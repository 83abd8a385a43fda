"""Tests learning rates: numbers, traced scalars, schedules, and prefixes that are matched by path."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from flax import nnx

from layca_optax import layca

PARAMS = {
    "layers": [
        {"kernel": jnp.eye(3), "bias": jnp.ones(3)},
        {"kernel": 2 * jnp.eye(3) + 1, "bias": jnp.ones(3)},
    ],
    "head": {"kernel": jnp.ones((3, 2))},
}
GRADIENTS = jax.tree.map(lambda x: jax.random.normal(jax.random.key(x.size), x.shape), PARAMS)


def angles(learning_rate, steps=1):
    """Returns the angle by which each kernel turns in the last step."""
    optimizer = layca(learning_rate)
    params, state = PARAMS, optimizer.init(PARAMS)
    for _ in range(steps):
        before = params
        updates, state = optimizer.update(GRADIENTS, state, params)
        params = optax.apply_updates(params, updates)
    kernels = lambda p: (p["layers"][0]["kernel"], p["layers"][1]["kernel"], p["head"]["kernel"])
    return [oracle.angle(a, b) for a, b in zip(kernels(before), kernels(params), strict=True)]


@pytest.mark.parametrize(
    ("learning_rate", "expected"),
    [
        (0.1, [0.1, 0.1, 0.1]),
        (np.float32(0.1), [0.1, 0.1, 0.1]),
        (jnp.array(0.1), [0.1, 0.1, 0.1]),
        (lambda count: 0.1, [0.1, 0.1, 0.1]),
        ({"layers": 0.1, "head": 0.2}, [0.1, 0.1, 0.2]),
        ({"layers": [0.1, 0.3], "head": {"kernel": 0.2}}, [0.1, 0.3, 0.2]),
        ({"layers": (0.1, lambda count: 0.3), "head": jnp.array(0.2)}, [0.1, 0.3, 0.2]),
        ({"layers": [{"kernel": 0.1, "bias": 9.0}, 0.3], "head": 0.2}, [0.1, 0.3, 0.2]),
    ],
)
def test_every_form(learning_rate, expected):
    np.testing.assert_allclose(angles(learning_rate), np.arctan(expected), rtol=1e-5)


def test_a_schedule_counts_from_zero():
    rates = [0.3, 0.2, 0.1]
    for steps in (1, 2, 3):
        got = angles({"layers": lambda count: jnp.array(rates)[count], "head": 0.5}, steps)
        np.testing.assert_allclose(got, np.arctan([rates[steps - 1]] * 2 + [0.5]), rtol=1e-5)


def test_inject_hyperparams_with_a_number_and_with_a_schedule():
    w, g = jnp.eye(3), GRADIENTS["layers"][0]["kernel"]
    optimizer = optax.inject_hyperparams(layca)(learning_rate=lambda count: 0.1 * (count + 1))
    state = optimizer.init(w)
    for step in range(3):
        update, state = optimizer.update(g, state, w)
        assert oracle.angle(w, w + update) == pytest.approx(np.arctan(0.1 * (step + 1)), rel=1e-5)
    optimizer = optax.inject_hyperparams(layca)(learning_rate=0.1)
    state = optimizer.init(w)
    state.hyperparams["learning_rate"] = jnp.array(0.7)
    update, _ = optimizer.update(g, state, w)
    assert oracle.angle(w, w + update) == pytest.approx(np.arctan(0.7), rel=1e-5)


def test_prefixes_match_by_path_not_by_kind_of_node():
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    params = nnx.state(model, nnx.Param)
    pure = nnx.to_pure_dict(params)
    for rates in ({"kernel": 0.1, "bias": 0.2}, jax.tree.map(lambda _: 0.1, params)):
        optimizer = layca(rates)
        state = optimizer.init(params)
        update, _ = optimizer.update(jax.tree.map(lambda x: x + 1, pure), state, pure)
        assert oracle.angle(pure["kernel"], pure["kernel"] + update["kernel"]) == pytest.approx(
            np.arctan(0.1), rel=1e-5
        )


def test_a_part_that_is_masked_or_none_needs_no_match():
    rates = {"a": {"kernel": 0.1}, "b": {"kernel": 0.2}}
    for hole in (None, optax.MaskedNode()):
        params = {"a": {"kernel": jnp.eye(2)}, "b": hole}
        layca(rates).init(params)
        layca(rates).init({"a": {"kernel": jnp.eye(2)}, "b": {"kernel": hole}})
    with pytest.raises(ValueError, match="'b/kernel'"):
        layca(rates).init({"a": {"kernel": jnp.eye(2)}, "b": {}})
    layca(rates).init({})


def test_rates_of_leaves_that_others_trains_are_not_needed():
    params = {"kernel": jnp.eye(2), "bias": jnp.ones(2)}
    optimizer = layca({"kernel": 0.1}, others=optax.sgd(0.5))
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    np.testing.assert_allclose(updates["bias"], [-0.5, -0.5])
