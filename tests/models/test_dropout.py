"""Tests that the randomness of dropout is part of the model's state, in checkpoints and scans, too."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import pure
from models.vgg import WilsonVGG
from training.checkpoints import Checkpoints

pytestmark = pytest.mark.slow

MODEL = pure(partial(WilsonVGG, filters=(4,), convs=(2,), hidden=16))
APPLY = jax.jit(MODEL.apply, static_argnames="train")


@pytest.fixture(scope="module")
def images():
    return jax.random.normal(jax.random.key(1), (8, 2, 2, 3))


@pytest.fixture(scope="module")
def start():
    return MODEL.init(jax.random.key(0))


@pytest.fixture(scope="module")
def other_state():
    return MODEL.init(jax.random.key(1))[1]


def assert_same(a, b):
    for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True):
        assert jnp.all(x == y)


def test_every_call_drops_other_values_which_the_state_determines(images, start, other_state):
    params, state = start
    first, after = APPLY(params, state, images, train=True)
    np.testing.assert_array_equal(APPLY(params, state, images, train=True)[0], first)
    assert np.any(APPLY(params, after, images, train=True)[0] != first)
    assert np.any(APPLY(params, other_state, images, train=True)[0] != first)


def test_evaluation_drops_nothing(images, start, other_state):
    params, state = start
    logits, same = APPLY(params, state, images, train=False)
    np.testing.assert_array_equal(logits, APPLY(params, other_state, images, train=False)[0])
    assert_same(state, same)


def test_the_state_goes_through_checkpoints_bit_for_bit(images, start, tmp_path):
    params, state = start
    _, state = APPLY(params, state, images, train=True)
    with Checkpoints(tmp_path / "checkpoint") as checkpoints:
        checkpoints.save(1, state)
    with Checkpoints(tmp_path / "checkpoint") as checkpoints:
        restored = checkpoints.restore(1, jax.eval_shape(MODEL.init, jax.random.key(0))[1])
    assert_same(restored, state)
    assert_same(APPLY(params, restored, images, train=True), APPLY(params, state, images, train=True))


def test_the_state_can_be_the_carry_of_a_scan(images, start):
    params, state = start

    def step(state, _):
        logits, state = MODEL.apply(params, state, images, train=True)
        return state, logits

    end, logits = jax.lax.scan(step, state, length=2)
    assert np.any(logits[0] != logits[1])
    before, after = state["dropouts"][0]["rngs"], end["dropouts"][0]["rngs"]
    assert_same(after, {"count": before["count"] + 2, "key": before["key"]})
