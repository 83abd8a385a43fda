"""Tests that `jax_numpy_dtype_promotion="strict"` changes no result."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from layca_optax import (
    alpha_learning_rates,
    check_descent,
    check_state,
    describe,
    layca,
    layer_depths,
    layer_rotation,
    rebase,
    rotation_report,
    sgd_amom,
    skip_nonfinite,
    track_rotation,
)

TRANSFORMATIONS = {
    "layca": layca(0.1),
    "layca, rate in bfloat16": layca(jnp.array(0.125, jnp.bfloat16)),
    "layca, integer rate": layca(jnp.uint8(1)),
    "layca, schedule": layca(lambda count: 0.1 / (1 + count.astype(jnp.float32))),
    "layca, injected": optax.inject_hyperparams(layca)(0.1),
    "layca by neuron": layca(0.1, rotate="neuron", tangent=False, retraction="geodesic"),
    "layca on nothing": layca(0.1, rotate=lambda path, leaf: None),
    "layca and others": layca(0.1, others=optax.trace(0.9)),
    "tracker": track_rotation(),
    "tracker by neuron": track_rotation(rotate="neuron"),
    "skipping": skip_nonfinite(optax.chain(layca(0.1), track_rotation()), zeros=True),
}
QUICK = ("layca", "layca, schedule", "layca, injected", "layca on nothing", "layca and others", "tracker")


def tree(dtype, seed):
    shapes = {"bias": (6,), "kernel": (4, 6), "large": (128, 80)}
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=shape), dtype) for name, shape in shapes.items()}


def two_steps(transformation, params, gradients):
    state, update = transformation.init(params), jax.jit(transformation.update)
    _, state = transformation.update(gradients, state, params)
    return update(gradients, state, params)


@pytest.mark.parametrize("gradient_dtype", ["the same", pytest.param(jnp.float32, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "dtype",
    [jnp.bfloat16, *(pytest.param(dtype, marks=pytest.mark.slow) for dtype in (jnp.float32, jnp.float16))],
)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in TRANSFORMATIONS]
)
def test_every_transformation(name, dtype, gradient_dtype):
    params, gradients = tree(dtype, 0), tree(dtype if gradient_dtype == "the same" else gradient_dtype, 1)
    if name == "layca and others" and gradient_dtype != dtype:
        # optax's `trace` itself mixes dtypes.
        gradients = tree(dtype, 1)
    expected = two_steps(TRANSFORMATIONS[name], params, gradients)
    with jax.numpy_dtype_promotion("strict"):
        chex.assert_trees_all_equal(two_steps(TRANSFORMATIONS[name], params, gradients), expected)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_every_transformation_in_float64(name):
    params, gradients = tree(jnp.float64, 0), tree(jnp.float64, 1)
    expected = two_steps(TRANSFORMATIONS[name], params, gradients)
    with jax.numpy_dtype_promotion("strict"):
        chex.assert_trees_all_equal(two_steps(TRANSFORMATIONS[name], params, gradients), expected)


def model(params, x):
    return jnp.tanh(x @ params["kernel"] + params["bias"][None]) * params["large"].sum()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_everything_else(dtype):
    params, gradients = tree(dtype, 0), tree(dtype, 1)
    optimizer = optax.chain(layca(0.1), track_rotation())

    def everything():
        state = optimizer.init(params)
        check_state(state)
        check_descent(optimizer, params, gradients)
        _, state = optimizer.update(gradients, rebase(state, params), params)
        depths = layer_depths(model, params, jnp.ones((2, 4), dtype))
        rates = alpha_learning_rates(jnp.asarray(0.1, dtype), 0.2, depths)
        halving = alpha_learning_rates(lambda count: jnp.asarray(0.1, dtype), jnp.float32(-0.2), depths)
        return (
            rotation_report(state),
            layer_rotation(gradients, params),
            describe(params, learning_rate=rates, optimizer=optimizer),
            describe(params, learning_rate=halving),
            sgd_amom(0.1).update(gradients, sgd_amom(0.1).init(params))[0],
        )

    expected = everything()
    with jax.numpy_dtype_promotion("strict"):
        result = everything()
    assert result[2:4] == expected[2:4]
    chex.assert_trees_all_equal(result[:2] + result[4:], expected[:2] + expected[4:])
