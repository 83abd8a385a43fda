import jax
import jax.numpy as jnp
import pytest

from layca_optax import describe


def test_one_row_a_leaf():
    params = {
        "block": {"kernel": jnp.ones((3, 4, 5)), "bias": jnp.ones(5)},
        "head": jnp.zeros((5, 2)),
        "steps": jnp.array(3),
    }
    text = describe(params, rotate="neuron", learning_rate={"block": 0.1, "head": 0.2, "steps": 1.0})
    assert text.splitlines() == [
        "path          shape      vectors  rule                     rate",
        "block/bias    5                -  plain step               0.1",
        "block/kernel  3 x 4 x 5        5  rotates                  0.1",
        "head          5 x 2            2  starts at zero (2 of 2)  0.2",
        "steps         scalar           -  untouched                -",
        "76 parameters, 70 of them rotate in 7 vectors",
    ]


def test_shapes_are_enough():
    params = jax.eval_shape(lambda: {"kernel": jnp.zeros((1000, 20))})
    assert describe(params).splitlines() == [
        "path    shape      vectors  rule",
        "kernel  1000 x 20        1  rotates",
        "20,000 parameters, 20,000 of them rotate in 1 vector",
    ]


def test_a_rule_that_rotates_nothing_is_said():
    assert "NOTHING ROTATES" in describe({"bias": jnp.ones(3)})


def test_rates_that_match_nothing_are_refused_with_the_near_misses():
    with pytest.raises(ValueError, match=r"'kernal'.*'kernel'"):
        describe({"kernel": jnp.eye(2)}, learning_rate={"kernal": 0.1, "kernel": 0.1})
