"""Runs optax's own tests of its optimizers, `_common_test.py` and `sharding_test.py`, on this library.

Only matrices that are not zero turn, so weights that optax starts at zero start at random here.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from optimizers import OPTIMIZERS, PARAMS, assert_close, each, every_layca, every_optimizer, normal

from layca_optax import layca, track_rotation

BASES = [name for name in OPTIMIZERS if name not in ("layca on adam, tracked", "layca on adam, skipping")]


def loss(params):
    """Is smallest where every leaf points in the direction of its target."""
    targets = normal(7)
    cosine = lambda w, t: jnp.sum(w * t) / jnp.sqrt(jnp.sum(w * w) * jnp.sum(t * t))
    bias = jnp.sum((params["bias"] - targets["bias"].astype(params["bias"].dtype)) ** 2)
    return bias + sum(1 - cosine(params[k], targets[k].astype(params[k].dtype)) for k in ("kernel", "stack"))


@every_optimizer
def test_accepts_extra_args_and_does_not_compile_twice(name):
    optimizer = OPTIMIZERS[name](0.1)

    @jax.jit
    def step(params, state):
        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state, params, value=value, not_expected_by_anybody=1)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, optimizer.init(PARAMS)
    for _ in range(3):
        params, state = step(params, state)
    assert step._cache_size() == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", BASES)
def test_converges(name):
    schedule = optax.exponential_decay(0.1, 1, 0.995)
    optimizer = OPTIMIZERS[name](schedule)
    state = optimizer.init(PARAMS)
    assert_close(optax.tree.map_params(optimizer, lambda v: v, state), state)

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.jit(lambda carry: jax.lax.scan(step, carry, length=3000))((PARAMS, state))
    targets = normal(7)
    for kernel in ("kernel", "stack"):
        # Neurons keep their norms, which limits how well the leaf as a whole can point to its target.
        allowed = 0.7 if name == "layca by neuron" else 0.03
        if name != "sgd_amom":
            assert oracle.norm(params[kernel]) == pytest.approx(oracle.norm(PARAMS[kernel]), rel=1e-5)
            assert oracle.angle(params[kernel], targets[kernel]) < allowed


@every_optimizer
def test_inject_hyperparams_under_jit(name):
    params = [-jnp.ones((2, 3)), jnp.ones((2, 5, 2))]
    gradient = [jnp.cos(jnp.arange(6.0)).reshape(2, 3), jnp.sin(jnp.arange(20.0)).reshape(2, 5, 2)]
    plain, injected = OPTIMIZERS[name](0.1), optax.inject_hyperparams(OPTIMIZERS[name])(0.1)
    updates, state = jax.jit(plain.update)(gradient, jax.jit(plain.init)(params), params)
    same, injected_state = jax.jit(injected.update)(gradient, jax.jit(injected.init)(params), params)
    assert_close((same, injected_state.inner_state), (updates, state))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, pytest.param(jnp.float32, marks=pytest.mark.slow)])
@every_optimizer
def test_preserves_dtypes_alone_and_while_gradients_are_accumulated(name, dtype):
    params = jax.tree.map(lambda w: w.astype(dtype), PARAMS)
    gradient = jax.grad(loss)(params)
    optimizer = OPTIMIZERS[name](0.1)
    updates, _ = jax.jit(optimizer.update)(gradient, jax.jit(optimizer.init)(params), params)
    assert {u.dtype for u in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}
    several = optax.MultiSteps(optimizer, every_k_schedule=4)
    updates, _ = jax.jit(several.update)(gradient, jax.jit(several.init)(params), params)
    for u in jax.tree.leaves(updates):
        assert u.dtype == dtype
        np.testing.assert_array_equal(u, jnp.zeros_like(u))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64])
@every_optimizer
def test_states_keep_shapes_and_dtypes(name, dtype):
    with jax.enable_x64(dtype == jnp.float64):
        params = jax.tree.map(lambda w: w.astype(dtype), PARAMS)
        optimizer = OPTIMIZERS[name](0.1)
        state = optimizer.init(params)

        def step(params, state, flag):
            # `cond` wants the same types from both branches.
            gradient = jax.grad(loss)(params)
            updates, state = jax.lax.cond(
                flag, lambda: optimizer.update(gradient, state, params), lambda: (params, state)
            )
            return optax.apply_updates(params, updates), state

        types = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)
        after = jax.eval_shape(step, params, state, True)
        assert types(after) == types(jax.eval_shape(lambda: (params, state)))


@every_optimizer
def test_a_constant_schedule_is_a_number(name):
    by_number, by_schedule = OPTIMIZERS[name](0.1), OPTIMIZERS[name](optax.constant_schedule(0.1))
    gradient = jax.grad(loss)(PARAMS)
    both = [jax.jit(o.update)(gradient, o.init(PARAMS), PARAMS)[0] for o in (by_number, by_schedule)]
    assert_close(*both)


SHAPES = {"w": jax.ShapeDtypeStruct((2, 4, 8), jnp.float32)}


@every_layca
def test_init_with_shapes_alone_says_that_norms_need_values(name):
    message = r"'w' is a ShapeDtypeStruct.*jax\.eval_shape\(optimizer\.init, params\)"
    with pytest.raises(ValueError, match=message):
        OPTIMIZERS[name](0.1).init(SHAPES)
    jax.eval_shape(OPTIMIZERS[name](0.1).init, SHAPES)


# Explicit meshes refuse Muon's matrix products along sharded axes, with or without Layca.
SHARDED = {name: make(1.0) for name, make in OPTIMIZERS.items() if name != "layca around muon"}
SHARDED["track_rotation by neuron"] = track_rotation(rotate="neuron")
SHARDED["layca by pieces"] = layca(1.0, rotate=lambda path, leaf: (0, (2, 2)))


@each(SHARDED)
def test_states_keep_shardings_from_init_to_update_and_under_jit(name):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Explicit,))
    rng = np.random.default_rng(0)
    optimizer = SHARDED[name]
    types = lambda tree: jax.tree.map(jax.typeof, tree)
    with jax.set_mesh(mesh):
        params, gradient = jax.device_put(
            [jnp.asarray(rng.normal(size=(2, 8, 4)), jnp.float16) for _ in range(2)],
            NamedSharding(mesh, P(None, "x")),
        )
        state = optimizer.init(params)
        updates, after = optimizer.update(gradient, state, params)
        assert types(after) == types(state)
        assert types(updates) == types(params)
        assert types(jax.jit(optimizer.init)(params)) == types(state)
        assert types(jax.jit(optimizer.update)(gradient, state, params)) == types((updates, after))
