"""Tests rates that are integers, and schedules that are pytrees, as optax takes them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from jax.tree_util import Partial
from optimizers import GRADIENTS, PARAMS, assert_close, run, schedule

from layca_optax import alpha_learning_rates, describe, layca


class Decaying(eqx.Module):
    """Is a schedule whose arrays are its leaves."""

    start: float
    power: float

    def __call__(self, count):
        return self.start * (1.0 + count) ** self.power


def decaying(start, power, count):
    return start * (1.0 + count) ** power


SCHEDULES = {
    "Partial": Partial(decaying, 0.2, -1.0),
    "Partial of an optax schedule": Partial(schedule),
    "module": Decaying(0.2, -1.0),
    "module of arrays": Decaying(jnp.array(0.2), jnp.array(-1.0)),
}


@pytest.mark.parametrize("make", [lambda s: s, lambda s: {"kernel": s, "stack": s, "bias": s}, optax.sgd])
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_that_are_trees(name, make):
    if make is optax.sgd:
        optimizer, expected = optax.sgd(SCHEDULES[name]), optax.sgd(schedule)
    else:
        optimizer, expected = layca(make(SCHEDULES[name])), layca(make(schedule))
    assert_close(run(optimizer, GRADIENTS).params, run(expected, GRADIENTS).params)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_that_are_trees_everywhere_else(name):
    assert "rotates     0.2" in describe(PARAMS, learning_rate=SCHEDULES[name])
    injected = optax.inject_hyperparams(layca)(SCHEDULES[name])
    assert_close(run(injected, GRADIENTS[:2]).params, run(layca(schedule), GRADIENTS[:2]).params)
    rates = alpha_learning_rates(SCHEDULES[name], 0.0, {"kernel": 0, "stack": 1, "bias": -1})
    assert_close(run(layca(rates), GRADIENTS[:2]).params, run(layca(schedule), GRADIENTS[:2]).params)
    parts = {"a": layca({"bias": SCHEDULES[name], "kernel": SCHEDULES[name], "stack": 0.1}), "b": layca()}
    partition = optax.partition(parts, {"bias": "a", "kernel": "a", "stack": "b"})
    after = run(partition, GRADIENTS[:2]).params[-1]["kernel"]
    assert_close(after, run(layca(schedule), GRADIENTS[:2]).params[-1]["kernel"])


def test_a_schedule_may_be_traced():
    step = jax.jit(lambda s, w, g: layca(s).update(g, layca(s).init(w), w)[0])
    assert_close(
        step(Decaying(0.2, -1.0), PARAMS, GRADIENTS[0]),
        layca(0.2).update(GRADIENTS[0], layca(0.2).init(PARAMS), PARAMS)[0],
    )


def model_and_gradients():
    model = eqx.filter(eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(0)), eqx.is_inexact_array)
    return model, jax.tree.map(lambda w: jnp.cos(jnp.arange(w.size, dtype=w.dtype)).reshape(w.shape), model)


@pytest.mark.parametrize("nested", [False, True])
def test_a_module_that_can_be_called_may_be_a_tree_of_rates(nested):
    model, gradients = model_and_gradients()
    assert callable(model)
    if nested:
        model, gradients = {"deep": [model]}, {"deep": [gradients]}
    rates = jax.tree.map(lambda w: 0.1 * w.shape[0], model)
    schedules = jax.tree.map(lambda w: Decaying(0.1 * w.shape[0], -1.0), model)
    for optimizer in (layca(rates), layca(schedules)):
        updates, _ = optimizer.update(gradients, optimizer.init(model), model)
        for w, u in zip(jax.tree.leaves(model), jax.tree.leaves(updates), strict=True):
            if w.ndim == 2:
                assert oracle.angle(w, w + u) == pytest.approx(np.arctan(0.1 * w.shape[0]), rel=1e-5)
    negative = jax.tree.map(lambda w: -0.1, model)
    with pytest.raises(ValueError, match=r"layers/0/weight' is -0\.1; .* not negative"):
        layca(negative).init(model)


@pytest.mark.parametrize("dtype", ["uint8", "uint32", "int8", "int32", "bool"])
@pytest.mark.parametrize(
    "make", [lambda rate: rate, lambda rate: lambda count: rate], ids=["rate", "schedule"]
)
def test_integer_rates_turn_the_right_way(dtype, make):
    rate = jnp.asarray(1, dtype)
    expected = run(layca(1.0), GRADIENTS).params
    assert_close(run(layca(make(rate)), GRADIENTS).params, expected)
    assert_close(
        run(layca({"kernel": make(rate), "stack": 1, "bias": np.asarray(1, dtype)}), GRADIENTS).params,
        expected,
    )
