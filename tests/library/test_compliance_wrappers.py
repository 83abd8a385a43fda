"""Tests that every optimizer gives the same result inside optax's wrappers as alone, at every step."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from optimizers import (
    GRADIENTS,
    OPTIMIZERS,
    PARAMS,
    STEPS,
    assert_close,
    every_layca,
    every_optimizer,
    reference,
    run,
    schedule,
)

from layca_optax import layca

KERNELS = ("kernel", "stack")


def kernels(params):
    return {name: params[name] for name in KERNELS}


@every_layca
def test_alone_it_turns_by_the_rate_of_each_step_and_keeps_the_norm(name):
    params = reference(name).params
    for kernel in KERNELS:
        for step in range(STEPS):
            before, after = params[step][kernel], params[step + 1][kernel]
            assert oracle.angle(before, after) == pytest.approx(np.arctan(schedule(step)), rel=1e-5)
            assert oracle.norm(after) == pytest.approx(oracle.norm(params[0][kernel]), rel=1e-6)


@every_optimizer
def test_alone_it_descends(name):
    params = reference(name).params
    for leaf, gradient in GRADIENTS[0].items():
        assert float(jnp.sum((params[1][leaf] - params[0][leaf]) * gradient)) < 0


@every_optimizer
def test_chain(name):
    doubled = [jax.tree.map(lambda g: 2 * g, gradient) for gradient in GRADIENTS]
    optimizer = optax.chain(optax.scale(0.5), optax.chain(OPTIMIZERS[name](schedule), optax.trace(0.0)))
    assert_close(run(optimizer, doubled).params, reference(name).params)


@every_optimizer
def test_partition(name):
    labels = {"bias": "plain", "kernel": "tested", "stack": "tested"}
    optimizer = optax.partition({"tested": OPTIMIZERS[name](schedule), "plain": optax.sgd(0.5)}, labels)
    params = run(optimizer, GRADIENTS).params[-1]
    assert_close(kernels(params), kernels(reference(name).params[-1]))
    assert_close(params["bias"], PARAMS["bias"] - 0.5 * sum(g["bias"] for g in GRADIENTS))


@every_optimizer
def test_masked(name):
    mask = {"bias": False, "kernel": True, "stack": True}
    params = run(optax.masked(OPTIMIZERS[name](schedule), mask), GRADIENTS).params[-1]
    assert_close(kernels(params), kernels(reference(name).params[-1]))
    assert_close(params["bias"], PARAMS["bias"] + sum(g["bias"] for g in GRADIENTS))


@every_optimizer
def test_multi_steps(name):
    optimizer = optax.MultiSteps(OPTIMIZERS[name](schedule), every_k_schedule=2)
    update = jax.jit(optimizer.update)
    params, state = PARAMS, optimizer.init(PARAMS)
    for step, gradient in enumerate(GRADIENTS[:2]):
        for weight in (1.5, 0.5):
            updates, state = update(jax.tree.map(lambda g, w=weight: w * g, gradient), state, params)
            if weight == 1.5:
                chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, updates))
            params = optax.apply_updates(params, updates)
        assert_close(params, reference(name).params[step + 1])
    assert_close(state.inner_opt_state, reference(name).states[2])


@every_optimizer
def test_inject_hyperparams_follows_the_schedule_exactly(name):
    optimizer = optax.inject_hyperparams(OPTIMIZERS[name])(learning_rate=schedule)
    result = run(optimizer, GRADIENTS)
    assert_close(result.params, reference(name).params)
    for step in range(STEPS):
        rate = result.states[step + 1].hyperparams["learning_rate"]
        assert float(rate) == np.float32(schedule(step))
    # Under jit the hyperparameters are traced.
    jax.eval_shape(optimizer.update, GRADIENTS[0], result.states[0], PARAMS)


@every_optimizer
def test_apply_if_finite(name):
    optimizer = optax.apply_if_finite(OPTIMIZERS[name](schedule), max_consecutive_errors=5)
    update = jax.jit(optimizer.update)
    params, state = PARAMS, optimizer.init(PARAMS)
    for step, gradient in enumerate(GRADIENTS[:2]):
        for bad in (jnp.nan, jnp.inf):
            broken = {**gradient, "kernel": gradient["kernel"].at[0, 0].set(bad)}
            updates, state = update(broken, state, params)
            chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, updates))
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        assert_close(params, reference(name).params[step + 1])
    assert int(state.total_notfinite) == 4


@every_optimizer
def test_lookahead(name):
    optimizer = optax.lookahead(OPTIMIZERS[name](schedule), sync_period=2, slow_step_size=0.5)
    result = run(optimizer, GRADIENTS[:3], optax.LookaheadParams.init_synced(PARAMS))
    alone = reference(name)
    assert_close(result.params[1].fast, alone.params[1])
    middle = jax.tree.map(lambda slow, fast: (slow + fast) / 2, PARAMS, alone.params[2])
    assert_close(result.params[2], optax.LookaheadParams(middle, middle))
    updates, _ = OPTIMIZERS[name](schedule).update(GRADIENTS[2], alone.states[2], middle)
    assert_close(result.params[3].fast, optax.apply_updates(middle, updates))


def times_value():
    """Needs an extra argument, as line searches and schedules by plateau do."""
    update = lambda updates, state, params=None, *, value, **extra_args: (
        jax.tree.map(lambda u: value * u, updates),
        state,
    )
    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


@every_optimizer
def test_extra_arguments(name):
    reversed_gradients = [jax.tree.map(jnp.negative, gradient) for gradient in GRADIENTS]
    optimizer = optax.chain(times_value(), OPTIMIZERS[name](schedule))
    result = run(optimizer, reversed_gradients, value=-1.0, unknown_to_all=None)
    assert_close(result.params, reference(name).params)


@every_layca
def test_extra_arguments_without_a_chain(name):
    updates, _ = OPTIMIZERS[name](schedule).update(
        GRADIENTS[0], reference(name).states[0], PARAMS, value=jnp.array(2.0)
    )
    assert_close(optax.apply_updates(PARAMS, updates), reference(name).params[1])


def test_others_gets_extra_arguments():
    optimizer = layca(0.1, others=times_value())
    updates, _ = optimizer.update(GRADIENTS[0], optimizer.init(PARAMS), PARAMS, value=3.0)
    assert_close(updates["bias"], 3 * GRADIENTS[0]["bias"])


def test_with_static_args_inject_hyperparams_takes_a_function_for_a_rule_not_a_schedule():
    rotate = lambda path, leaf: () if path == "kernel" else None
    optimizer = optax.inject_hyperparams(layca, static_args=("rotate",))(schedule, rotate=rotate)
    assert_close(run(optimizer, GRADIENTS).params, run(layca(schedule, rotate=rotate), GRADIENTS).params)


def test_rates_by_path_fit_each_part_of_a_partition():
    rates = {"bias": 0.5, "kernel": schedule, "stack": 0.3}
    labels = {"bias": "a", "kernel": "a", "stack": "b"}
    optimizer = optax.partition({"a": layca(rates), "b": layca(rates)}, labels)
    assert_close(run(optimizer, GRADIENTS).params, run(layca(rates), GRADIENTS).params)
