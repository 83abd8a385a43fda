"""Tests the rows of `describe`, one per leaf, and the probable mistakes that it lists below them."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from layca_optax import describe, layca

PARAMS = {
    "block": {"kernel": jnp.ones((3, 4, 5)), "bias": jnp.ones(5)},
    "head": jnp.zeros((5, 2)),
    "steps": jnp.array(3),
}


def warnings(params, **kwargs):
    return [line.removeprefix("! ") for line in describe(params, **kwargs).splitlines() if line[0] == "!"]


def test_one_row_per_leaf():
    text = describe(PARAMS, rotate="neuron", learning_rate={"block": 0.1, "head": 0.2, "steps": 1.0})
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


def test_rates_of_vectors_and_schedules_and_traced_ones():
    params = {"a": jnp.ones((2, 3, 3)), "b": jnp.ones((2, 3, 3))}
    rates = {"a": jnp.array([0.1, 0.3]), "b": lambda count: 0.5 / (1 + count)}
    rows = describe(params, rotate="stacked_layer", learning_rate=rates).splitlines()[1:3]
    assert [row.split("rotates  ")[1] for row in rows] == ["0.1 to 0.3", "0.5"]
    texts = []
    jax.eval_shape(lambda rate: texts.append(describe(params, learning_rate=rate)), jnp.array(0.1))
    assert texts[0].splitlines()[1].endswith("rotates  traced")


def test_only_zero_vectors_are_counted_as_starting_at_zero():
    params = {"embedding": jnp.ones((4, 3)).at[:, 1].set(0), "head": jnp.zeros((3, 2))}
    assert "starts at zero (1 of 3)" in describe(params, rotate="neuron").splitlines()[1]
    rows = describe(params).splitlines()
    assert rows[1].endswith("rotates")
    assert rows[2].endswith("starts at zero")


@pytest.mark.parametrize(
    ("rotate", "params", "expected"),
    [
        (
            "stacked_layer",
            {"bias": jnp.ones(3), "head": {"kernel": jnp.ones((3, 2))}, "ids": jnp.ones((2, 2, 2), int)},
            "'stacked_layer' needs floating leaves with 3 or more axes;"
            " the nearest are 'ids' (3 axes, but int32), 'head/kernel' (2 axes), 'bias' (1 axis)",
        ),
        (
            "layer",
            {"bias": jnp.ones(3), "scale": jnp.ones([])},
            "'layer' needs floating leaves with 2 or more axes;"
            " the nearest are 'bias' (1 axis), 'scale' (0 axes)",
        ),
        (
            lambda path, leaf: () if path.startswith("Layers/") else None,
            {"layers": [{"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}], "ids": jnp.ones((2, 2, 2), int)},
            "the function returned None for all floating leaves, those with the most axes being"
            " 'layers/0/kernel' (2 axes), 'layers/0/bias' (1 axis)",
        ),
        ("layer", {}, "there are no floating leaves"),
        (lambda path, leaf: (), {"ids": jnp.ones((2, 2), int)}, "there are no floating leaves"),
    ],
)
def test_a_rule_that_rotates_nothing_is_shown_with_the_reason(rotate, params, expected):
    assert warnings(params, rotate=rotate) == [f"NOTHING ROTATES: {expected}"]


def test_nothing_is_said_about_a_rule_and_rates_that_fit():
    assert warnings(PARAMS, learning_rate={"block": 0.1, "head": lambda count: 0.1}) == []


@pytest.mark.parametrize(
    ("rates", "expected", "shown"),
    [
        (
            {"kernal": 0.1, "kernel": 0.2, "bias": 0.3},
            "learning_rate has a rate at 'kernal', but the parameters have nothing there;"
            " the nearest parameters are 'kernel'",
            ["0.3", "0.2"],
        ),
        (
            {"kernel": 0.2},
            "no learning rate covers the parameter 'bias'; the nearest paths that have one are 'kernel'",
            ["none", "0.2"],
        ),
        (
            {"kernel": jnp.ones(3), "bias": 0.3},
            r"the learning rate of 'kernel' has shape (3,); its shape must be ()",
            ["0.3", "none"],
        ),
    ],
)
def test_rates_that_layca_refuses_are_shown_with_similar_names(rates, expected, shown):
    params = {"kernel": jnp.eye(2), "bias": jnp.ones(2)}
    assert warnings(params, learning_rate=rates) == [expected]
    rows = describe(params, learning_rate=rates).splitlines()[1:3]
    assert [row.split()[-1] for row in rows] == shown
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        layca(rates).init(params)


def test_a_long_list_of_mistakes_is_cut():
    params = {"layers": [jnp.eye(2)] * 20}
    said = warnings(params, learning_rate={"layer": 0.1})
    assert "the nearest parameters are 'layers/" in said[0]
    assert "'layers/4'" in said[5]
    assert said[6:] == ["and 15 more like the last"]


def test_rates_that_no_parameter_could_have_are_refused():
    with pytest.raises(ValueError, match="not negative"):
        describe(PARAMS, learning_rate={"block": -0.1, "head": 0.1})
    with pytest.raises(ValueError, match="did you mean 'layer'"):
        describe(PARAMS, rotate="layers")


def test_flax_modules():
    expected = [
        "path    shape  vectors  rule        rate",
        "bias    2            -  plain step  0.2",
        "kernel  3 x 2        1  rotates     0.1",
        "8 parameters, 6 of them rotate in 1 vector",
    ]
    rates = {"kernel": 0.1, "bias": 0.2}
    state = nnx.state(nnx.eval_shape(lambda: nnx.Linear(3, 2, rngs=nnx.Rngs(0))), nnx.Param)
    assert describe(state, learning_rate=rates).splitlines() == expected
    dense = nn.Dense(2, kernel_init=nn.with_partitioning(nn.initializers.lecun_normal(), ("in", "out")))
    boxed = jax.eval_shape(dense.init, jax.random.key(0), jnp.ones((1, 3)))["params"]
    assert isinstance(boxed["kernel"], nn.Partitioned)
    assert describe(boxed, learning_rate=rates).splitlines() == expected
    frozen = nn.FrozenDict({"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)})
    assert describe(frozen, learning_rate=rates).splitlines() == expected


def test_a_rate_above_one_is_pointed_out():
    params = {"a": jnp.ones((2, 2)), "b": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    assert warnings(params, learning_rate={"a": 0.1, "b": 1.0, "bias": 81.0}) == []
    (said,) = warnings(params, learning_rate=3**4)
    assert said.endswith("more than 45 degrees per step: 81 at 'a', and 1 more")


def has_axes(params):
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (layca(rotate="neuron"), "'block/kernel' has 5 vectors there and 1 vector here"),
        (layca(rotate=lambda path, leaf: () if path == "head" else None), "'block/kernel' has none there"),
        (optax.chain(optax.scale_by_adam(), layca()), None),
        (optax.partition({True: layca(), False: optax.sgd(0.1)}, has_axes), None),
        (optax.adam(1e-3), None),
    ],
)
def test_the_rule_of_the_optimizer_is_compared_with_that_of_the_table(optimizer, expected):
    params = {"block": {"kernel": jnp.ones((3, 4, 5)), "bias": jnp.ones(5)}, "head": jnp.ones((5, 2))}
    said = warnings(params, optimizer=optimizer)
    assert bool(said) == bool(expected)
    assert expected is None or expected in said[0]
