"""Tests that every optimizer gives the same result under jax's transformations as in a plain loop."""

import functools

import jax
import jax.numpy as jnp
import optax
from optimizers import (
    GRADIENTS,
    OPTIMIZERS,
    PARAMS,
    assert_close,
    every_optimizer,
    normal,
    reference,
    run,
    schedule,
    stacked,
)

from layca_optax import layca


def scanned(optimizer, params, state, gradients):
    def step(carry, gradient):
        params, state = carry
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, state), gradients)[0]


@every_optimizer
def test_scan_with_donation(name):
    two_steps = jax.jit(functools.partial(scanned, OPTIMIZERS[name](schedule)), donate_argnums=(0, 1))
    params = jax.tree.map(jnp.copy, PARAMS)
    state = OPTIMIZERS[name](schedule).init(params)
    for start in (0, 2):
        before = jax.tree.leaves((params, state))
        params, state = two_steps(params, state, stacked(GRADIENTS[start : start + 2]))
        assert all(leaf.is_deleted() for leaf in before)
    assert_close((params, state), (reference(name).params[-1], reference(name).states[-1]))
    assert two_steps._cache_size() == 1


@every_optimizer
def test_vmap_over_seeds_and_learning_rates(name):
    seeds, rates = [normal(7), normal(8)], [0.5, 2.0]

    def train(rate, params):
        optimizer = OPTIMIZERS[name](rate)
        return scanned(optimizer, params, optimizer.init(params), stacked(GRADIENTS))[0]

    together = jax.jit(jax.vmap(train))(jnp.array(rates), stacked(seeds))
    apart = [
        run(OPTIMIZERS[name](rate), GRADIENTS, params).params[-1]
        for rate, params in zip(rates, seeds, strict=True)
    ]
    assert_close(together, stacked(apart))


@every_optimizer
def test_pmap_with_gradients_averaged_over_8_devices(name):
    optimizer = OPTIMIZERS[name](schedule)

    @functools.partial(jax.pmap, axis_name="batch")
    def step(params, state, gradient):
        updates, state = optimizer.update(jax.lax.pmean(gradient, "batch"), state, params)
        return optax.apply_updates(params, updates), state

    copied = lambda tree: jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (8, *jnp.shape(leaf))), tree)
    uneven = lambda leaf: jnp.multiply.outer(jnp.linspace(0.5, 1.5, 8), leaf)
    params, state = copied((PARAMS, optimizer.init(PARAMS)))
    for gradient in GRADIENTS:
        params, state = step(params, state, jax.tree.map(uneven, gradient))
    expected = copied((reference(name).params[-1], reference(name).states[-1]))
    assert_close((params, state), expected)


def test_outside_jit_nothing_is_compiled_again():
    run(layca(schedule), GRADIENTS)
    compiled = []
    listener = lambda event, duration, **kwargs: compiled.append(event) if "compile" in event else None
    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        run(layca(schedule), GRADIENTS)
        assert compiled == []
        run(layca(schedule), [jnp.ones((9, 7))], jnp.ones((9, 7)))
        assert compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)
