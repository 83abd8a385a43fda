"""Tests that `check_descent` finds a wrong sign for any optimizer, and never refuses a right one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from optimizers import GRADIENTS, OPTIMIZERS, PARAMS, every_optimizer, normal, schedule

from layca_optax import check_descent, describe, layca, skip_nonfinite


@every_optimizer
def test_optimizers_with_the_right_sign_pass(name):
    check_descent(OPTIMIZERS[name](schedule), PARAMS, GRADIENTS[0])


@every_optimizer
def test_optimizers_with_the_wrong_sign_are_refused(name):
    with pytest.raises(ValueError, match="climb the loss at 'bias', 'kernel', 'stack'"):
        check_descent(optax.chain(OPTIMIZERS[name](schedule), optax.scale(-1.0)), PARAMS, GRADIENTS[0])


FINISHED = {
    "adamw": optax.adamw(1e-3),
    "sgd": optax.sgd(1e-3),
    "adamw, much decay": optax.adamw(1e-3, weight_decay=100.0),
    "lion": optax.lion(1e-3),
    "muon": optax.contrib.muon(1e-3),
    "adafactor": optax.adafactor(1e-3),
    "lamb": optax.lamb(1e-3),
    "noisy sgd": optax.noisy_sgd(1e-3, key=jax.random.key(0)),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "adamw" else pytest.mark.slow) for name in FINISHED]
)
def test_layca_behind_a_finished_optimizer_needs_flip_sign_false(name):
    gradients = jax.tree.map(lambda g: 1e-3 * g, GRADIENTS[0])
    with pytest.raises(ValueError, match=r"climb the loss.*optax\.adam.*flip_sign=False"):
        check_descent(optax.chain(FINISHED[name], layca()), PARAMS, gradients)
    check_descent(optax.chain(FINISHED[name], layca(flip_sign=False)), PARAMS, gradients)


@pytest.mark.parametrize(
    "scale", [1.0, *(pytest.param(scale, marks=pytest.mark.slow) for scale in (1e-30, 1e30))]
)
def test_layca_behind_a_direction_needs_flip_sign_true(scale):
    gradients = jax.tree.map(lambda g: scale * g, GRADIENTS[0])
    direction = optax.trace(0.9)
    with pytest.raises(ValueError, match="climb the loss"):
        check_descent(optax.chain(direction, layca(flip_sign=False)), PARAMS, gradients)
    check_descent(optax.chain(direction, layca()), PARAMS, gradients)


def test_a_wrong_sign_of_others_is_found_by_leaf():
    check_descent(layca(others=optax.scale_by_learning_rate(0.1)), PARAMS, GRADIENTS[0])
    with pytest.raises(ValueError, match=r"climb the loss at 'bias'\. .*scale_by_learning_rate"):
        check_descent(layca(others=optax.scale(0.1)), PARAMS, GRADIENTS[0])


def warming_up(optimizer):
    return optax.chain(optimizer, optax.scale_by_schedule(lambda count: jnp.where(count < 3, 0.0, 1.0)))


@pytest.mark.parametrize("wrap", [warming_up, lambda o: optax.MultiSteps(o, 4), skip_nonfinite])
def test_it_waits_for_the_first_update_that_is_not_zero(wrap):
    check_descent(wrap(layca()), PARAMS, GRADIENTS[0])
    with pytest.raises(ValueError, match="climb"):
        check_descent(wrap(layca(flip_sign=False)), PARAMS, GRADIENTS[0])


def test_leaves_may_stand_still_unless_all_do():
    check_descent(layca(others=optax.set_to_zero()), PARAMS, GRADIENTS[0])
    tree = {**PARAMS, "steps": jnp.array(3), "zero": jnp.zeros((2, 2)), "none": None, "t": 1.0}
    gradient = {**GRADIENTS[0], "steps": jnp.array(0), "zero": jnp.ones((2, 2)), "none": None, "t": 2.0}
    check_descent(layca(), tree, gradient)
    with pytest.raises(ValueError, match="zero in every entry, in 1,000 steps"):
        check_descent(optax.set_to_zero(), PARAMS, GRADIENTS[0])
    with pytest.raises(ValueError, match="zero in every entry"):
        check_descent(layca(), PARAMS, jax.tree.map(jnp.zeros_like, PARAMS))


@pytest.mark.slow
def test_other_dtypes():
    for dtype in (jnp.bfloat16, jnp.float16):
        cast = lambda tree, dtype=dtype: jax.tree.map(lambda x: x.astype(dtype), tree)
        check_descent(layca(), cast(PARAMS), cast(GRADIENTS[0]))
        with pytest.raises(ValueError, match="climb"):
            check_descent(layca(flip_sign=False), cast(PARAMS), cast(GRADIENTS[0]))
    check_descent(layca(), {"z": jnp.array([1j, 2.0])}, {"z": jnp.array([3.0 - 2j, 1j])})


def test_extra_arguments_reach_the_optimizer_and_nothing_is_changed():
    def update(updates, state, params=None, *, value, **extra_args):
        return jax.tree.map(lambda u: -value * u, updates), state

    optimizer = optax.GradientTransformationExtraArgs(optax.init_empty_state, update)
    check_descent(optimizer, PARAMS, GRADIENTS[0], value=1.0)
    with pytest.raises(ValueError, match="climb"):
        check_descent(optimizer, PARAMS, GRADIENTS[0], value=-1.0)
    np.testing.assert_array_equal(PARAMS["kernel"], normal(0)["kernel"])


@pytest.mark.slow
def test_flax_modules_and_sharded_weights():
    model = nnx.Linear(4, 6, rngs=nnx.Rngs(0))
    gradients = nnx.grad(lambda model: jnp.sum(model(jnp.ones((2, 4))) ** 2))(model)
    params = nnx.state(model, nnx.Param)
    check_descent(optax.chain(optax.scale_by_adam(), layca()), params, gradients)
    with pytest.raises(ValueError, match="climb the loss at 'bias', 'kernel'"):
        check_descent(optax.chain(optax.adam(0.1), layca()), params, gradients)
    mesh = jax.make_mesh((2,), ("x",))
    with jax.set_mesh(mesh):
        w, g = (
            jax.device_put(x, NamedSharding(mesh, P("x"))) for x in (PARAMS["kernel"], GRADIENTS[0]["kernel"])
        )
        check_descent(layca(), w, g)
        with pytest.raises(ValueError, match=r"at '\.'"):
            check_descent(layca(flip_sign=False), w, g)


def test_bad_input_is_refused():
    with pytest.raises(
        ValueError, match="gradients and params must have the same leaves; they differ in 'bias'"
    ):
        check_descent(layca(), PARAMS, {name: GRADIENTS[0][name] for name in ("kernel", "stack")})
    broken = {**GRADIENTS[0], "kernel": GRADIENTS[0]["kernel"].at[0, 0].set(jnp.nan)}
    with pytest.raises(ValueError, match="not finite at 'kernel'"):
        check_descent(optax.sgd(0.1), PARAMS, broken)
    with pytest.raises(ValueError, match="outside jit"):
        jax.jit(lambda params: check_descent(layca(), params, GRADIENTS[0]))(PARAMS)


@pytest.mark.parametrize("shapes_only", [False, True])
def test_describe_says_it_too(shapes_only):
    params = jax.eval_shape(lambda: PARAMS) if shapes_only else PARAMS
    right = optax.chain(optax.scale_by_adam(), layca())
    assert describe(params, optimizer=right) == describe(params)
    said = describe(params, optimizer=optax.chain(optax.adamw(1e-3), layca())).splitlines()
    assert said[:-1] == describe(params).splitlines()
    assert said[-1].startswith("! the updates climb the loss at 'bias', 'kernel', 'stack'. After")
    # An error in the first step is shown, too.
    said = describe(params, optimizer=layca({"kernal": 0.1})).splitlines()
    assert said[-1].startswith("! learning_rate has a rate at 'kernal'")


def test_describe_shows_what_starts_at_zero_as_without_an_optimizer():
    params = {"head": jnp.zeros((2, 2)), "kernel": jnp.eye(2)}
    assert describe(params, optimizer=layca()) == describe(params)
