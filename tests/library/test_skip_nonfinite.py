"""Tests that a layer whose gradient is not finite skips the step, and that others are not affected."""

from itertools import pairwise

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from steps import train

from layca_optax import layca, skip_nonfinite

SHAPES = {"stem": (4, 6), "block": (6, 6), "bias": (6,)}
# The steps at which a layer's gradient is not finite.
BAD = {"stem": (1, 2), "block": (), "bias": (2,)}


def random_tree(seed):
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in SHAPES.items()}


def spoiled(gradients, step):
    return {
        name: g.at[..., 1].set((jnp.nan, jnp.inf, -jnp.inf)[step % 3]) if step in BAD[name] else g
        for name, g in gradients.items()
    }


PARAMS = random_tree(0)
CLEAN = [random_tree(seed) for seed in (1, 2, 3, 4)]
SPOILED = [spoiled(g, step) for step, g in enumerate(CLEAN)]


def before_layca(direction, **kwargs):
    return optax.chain(direction, layca(lambda count: 0.1 / (1 + count), **kwargs))


OPTIMIZERS = {
    "sgd": layca(0.1),
    "nesterov": before_layca(optax.trace(0.9, nesterov=True)),
    "ema": before_layca(optax.ema(0.9, debias=False)),
    "rmsprop": before_layca(optax.scale_by_rms()),
    "adagrad": before_layca(optax.scale_by_rss()),
    "adam": before_layca(optax.scale_by_adam(), others=optax.adam(0.01)),
    "lion": before_layca(optax.scale_by_lion()),
    "one second moment per layer": before_layca(optax.scale_by_novograd()),
    "factored moments": before_layca(optax.scale_by_factored_rms(min_dim_size_to_factor=2)),
    "muon": optax.contrib.muon(0.1),
    "partition": optax.partition(
        {"rotates": before_layca(optax.scale_by_adam()), "plain": optax.adam(0.1)},
        lambda tree: {name: "plain" if name == "bias" else "rotates" for name in tree},
    ),
}


def left_out(optimizer, gradients):
    """Trains without `skip_nonfinite`, and restores every leaf with a bad layer's name after each step."""
    step, params, state = jax.jit(optimizer.update), PARAMS, optimizer.init(PARAMS)
    for number, g in enumerate(gradients):
        is_bad = lambda path, number=number: any(
            number in BAD.get(getattr(key, "key", None), ()) for key in path
        )
        updates, new_state = step(g, state, params)
        new_params = optax.apply_updates(params, updates)
        params, state = jax.tree.map_with_path(
            lambda path, new, old, is_bad=is_bad: old if is_bad(path) else new,
            (new_params, new_state),
            (params, state),
        )
    return params, state


QUICK = ("sgd", "adam", "one second moment per layer", "partition")


@pytest.mark.parametrize(
    "inner", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in OPTIMIZERS]
)
def test_a_bad_layer_skips_the_step_and_others_are_not_affected(inner):
    optimizer = OPTIMIZERS[inner]
    wrapped = skip_nonfinite(optimizer)
    step = jax.jit(wrapped.update)
    history, clean = (train(wrapped, gradients, PARAMS, step) for gradients in (SPOILED, CLEAN))
    for name, bad in BAD.items():
        for number, ((before, _), (after, _)) in enumerate(pairwise(history)):
            assert np.array_equal(before[name], after[name]) == (number in bad)
    params, state = history[-1]
    np.testing.assert_array_equal(params["block"], clean[-1][0]["block"])
    chex.assert_trees_all_close((params, state.inner_state), left_out(optimizer, CLEAN), rtol=1e-5, atol=1e-6)
    for path, leaf in jax.tree.leaves_with_path(state.inner_state):
        assert np.all(np.isfinite(leaf)), path
    assert {name: int(n) for name, n in state.skipped_steps.items()} == {"stem": 2, "block": 0, "bias": 1}


def test_clipping_inside_sees_zeros_for_the_bad_layer():
    optimizer = skip_nonfinite(optax.clip_by_global_norm(1.0))
    updates, _ = optimizer.update(SPOILED[1], optimizer.init(PARAMS))
    norm = optax.tree.norm({**CLEAN[1], "stem": 0.0})
    np.testing.assert_allclose(updates["block"], CLEAN[1]["block"] / norm, rtol=1e-6)
    np.testing.assert_array_equal(updates["stem"], np.zeros(SHAPES["stem"]))


def test_accumulated_gradients_are_kept_and_the_bad_ones_left_out():
    optimizer = skip_nonfinite(optax.MultiSteps(layca(0.1), 2))
    state = optimizer.init(PARAMS)
    _, state = optimizer.update(CLEAN[0], state, PARAMS)
    _, after = optimizer.update(SPOILED[1], state, PARAMS)
    for name, expected in (("stem", CLEAN[0]["stem"]), ("block", np.zeros(SHAPES["block"]))):
        np.testing.assert_array_equal(after.inner_state.acc_grads[name], expected)


@pytest.mark.parametrize(
    ("params", "gradients"),
    [
        pytest.param(jnp.ones((2, 3)), jnp.full((2, 3), jnp.nan), id="bare array"),
        pytest.param(jnp.array(2.0), jnp.array(jnp.inf), id="bare scalar"),
        pytest.param([jnp.ones((2, 2))] * 2, [jnp.full((2, 2), jnp.nan)] * 2, id="list"),
        pytest.param({"count": jnp.array(1.0)}, {"count": jnp.array(jnp.nan)}, id="named like a count"),
        pytest.param(
            {"mu": jnp.ones((2, 2)), "nu": {"mu": jnp.ones(3)}},
            {"mu": jnp.full((2, 2), jnp.nan), "nu": {"mu": jnp.full(3, jnp.inf)}},
            id="named like moments",
        ),
        pytest.param(
            {"a": jnp.ones((2, 2), jnp.bfloat16), "b": jnp.ones(2, jnp.complex64)},
            {"a": jnp.full((2, 2), -jnp.inf, jnp.bfloat16), "b": jnp.full(2, jnp.nan, jnp.complex64)},
            id="dtypes",
        ),
    ],
)
def test_counts_advance_while_the_moments_of_any_tree_are_kept(params, gradients):
    inner = optax.chain(optax.scale_by_adam(), optax.scale_by_schedule(lambda count: 1.0))
    optimizer = skip_nonfinite(inner)
    state = optimizer.init(params)
    good = jax.tree.map(jnp.ones_like, params)
    _, state = optimizer.update(good, state, params)
    updates, after = optimizer.update(gradients, state, params)
    chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, params))
    chex.assert_trees_all_equal_dtypes(updates, params)
    adam, schedule = after.inner_state
    assert (int(adam.count), int(schedule.count)) == (2, 2)
    chex.assert_trees_all_equal((adam.mu, adam.nu), tuple(state.inner_state[0][1:]))
    assert all(int(n) == 1 for n in after.skipped_steps.values())


def test_counts_are_read_by_path_wherever_the_wrapper_sits():
    wrapped = skip_nonfinite(before_layca(optax.scale_by_adam()))
    optimizer = optax.partition(
        {"skip": wrapped, "also": wrapped}, {"stem": "skip", "block": "skip", "bias": "also"}
    )
    _, state = jax.jit(optimizer.update)(SPOILED[2], optimizer.init(PARAMS), PARAMS)
    found = [counts for _, counts in optax.tree.get_all_with_path(state, "skipped_steps")]
    assert {name: int(n) for counts in found for name, n in counts.items()} == {
        "stem": 1,
        "block": 0,
        "bias": 1,
    }
    optimizer = optax.chain(optax.masked(wrapped, {"stem": True, "block": False, "bias": False}))
    updates, state = optimizer.update(SPOILED[2], optimizer.init(PARAMS), PARAMS)
    assert {name: int(n) for name, n in optax.tree.get(state, "skipped_steps").items()} == {"stem": 1}
    np.testing.assert_array_equal(updates["stem"], np.zeros(SHAPES["stem"]))
    assert not np.all(np.isfinite(updates["bias"]))


def test_integers_and_leaves_without_a_gradient_are_never_bad():
    # As in Equinox: all arrays are parameters, and integers have no gradient.
    params = {"w": jnp.ones((2, 2)), "steps": jnp.array([1, 2])}
    optimizer = skip_nonfinite(optax.trace(0.9))
    state = optimizer.init(params)
    for _ in range(2):
        updates, state = optimizer.update({"w": jnp.full((2, 2), jnp.nan), "steps": None}, state, params)
    np.testing.assert_array_equal(updates["w"], np.zeros((2, 2)))
    np.testing.assert_array_equal(state.inner_state.trace["w"], np.zeros((2, 2)))
    assert {name: int(n) for name, n in state.skipped_steps.items()} == {"w": 2}

    gradient = jax.grad(lambda p: jnp.nan * jnp.sum(p["w"]), allow_int=True)(params)
    optimizer = skip_nonfinite(layca(0.1))
    updates, state = optimizer.update(gradient, optimizer.init(params), params)
    chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, params))
    assert {name: int(n) for name, n in state.skipped_steps.items()} == {"w": 1}


def test_the_state_is_made_at_init_and_survives_map_params_and_inject_hyperparams():
    wrapped = skip_nonfinite(before_layca(optax.scale_by_adam()))
    state = wrapped.init(PARAMS)
    chex.assert_trees_all_equal_shapes_and_dtypes(
        jax.eval_shape(wrapped.update, PARAMS, state, PARAMS)[1], state
    )
    mapped = optax.tree.map_params(wrapped, lambda _: "moment", state, transform_non_params=lambda _: "other")
    assert mapped.skipped_steps == "other"
    assert mapped.inner_state[0].mu == dict.fromkeys(PARAMS, "moment")
    for empty in ({}, {"a": None}):
        state = wrapped.init(empty)
        updates, new = wrapped.update(empty, state, empty)
        chex.assert_trees_all_equal((updates, new.skipped_steps), (empty, state.skipped_steps))
    injected = optax.inject_hyperparams(lambda rate: skip_nonfinite(layca(rate)))(rate=0.2)
    updates, state = injected.update(SPOILED[1], injected.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["bias"], -0.2 * CLEAN[1]["bias"], rtol=1e-6)
    assert int(optax.tree.get(state, "skipped_steps")["stem"]) == 1


def test_extra_arguments_reach_the_inner_transformation():
    seen = []
    inner = optax.GradientTransformationExtraArgs(
        optax.init_empty_state, lambda u, s, p=None, **extra: seen.append(extra) or (u, s)
    )
    optimizer = skip_nonfinite(inner)
    optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS, value=3.0)
    assert seen == [{"value": 3.0}]


def test_the_same_under_scan_vmap_pmap_and_donation():
    # Without Layca, which takes longer to compile and has its own tests.
    optimizer = skip_nonfinite(optax.adam(0.1))
    state = optimizer.init(PARAMS)
    expected, expected_state = train(optimizer, SPOILED, PARAMS)[-1]

    def body(carry, g):
        updates, new_state = optimizer.update(g, carry[1], carry[0])
        return (optax.apply_updates(carry[0], updates), new_state), None

    run = lambda params, state, gradients: jax.lax.scan(body, (params, state), gradients)[0]
    stack = lambda *trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    spoiled_, clean = stack(*SPOILED), stack(*CLEAN)
    both = jax.vmap(run, (None, None, 0))
    for params, after in (
        jax.jit(run, donate_argnums=(0, 1))(*jax.tree.map(jnp.copy, (PARAMS, state)), spoiled_),
        jax.tree.map(lambda x: x[0], jax.jit(both)(PARAMS, state, stack(spoiled_, clean))),
        jax.tree.map(lambda x: x[0], jax.pmap(run)(*stack((PARAMS, state, spoiled_)))),
    ):
        chex.assert_trees_all_close(params, expected, atol=1e-5)
        chex.assert_trees_all_close(after, expected_state, atol=1e-5)


def test_nnx_and_linen():
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    kernel = np.asarray(model.kernel[...])
    optimizer = nnx.Optimizer(model, skip_nonfinite(before_layca(optax.scale_by_adam())), wrt=nnx.Param)
    gradients = nnx.state(model, nnx.Param)
    gradients = jax.tree.map(lambda g: jnp.full_like(g, jnp.nan) if g.ndim == 2 else g + 1, gradients)
    nnx.jit(lambda model, optimizer, g: optimizer.update(model, g))(model, optimizer, gradients)
    np.testing.assert_array_equal(model.kernel[...], kernel)
    assert np.all(model.bias[...] != 0)
    state = nnx.as_pure(optimizer.opt_state)
    assert {path: int(n) for path, n in state.skipped_steps.items()} == {"bias": 0, "kernel": 1}
    np.testing.assert_array_equal(state.inner_state[0].mu["kernel"], np.zeros((3, 2)))

    boxed = {"kernel": nn.Partitioned(jnp.eye(2), names=("in", "out")), "bias": jnp.ones(2)}
    wrapped = skip_nonfinite(optax.adam(0.1))
    gradients = jax.tree.map(lambda g: jnp.full_like(g, jnp.nan) if g.ndim == 2 else g, boxed)
    updates, state = wrapped.update(gradients, wrapped.init(boxed), boxed)
    np.testing.assert_array_equal(updates["kernel"].value, np.zeros((2, 2)))
    np.testing.assert_array_equal(state.inner_state[0].mu["kernel"].value, np.zeros((2, 2)))
    assert int(state.skipped_steps["kernel"]) == 1
