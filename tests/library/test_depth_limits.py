"""Tests forward passes whose order cannot be known, or is not needed; random keys, masks and empty loops."""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from layca_optax import layer_depths

X = jnp.ones((2, 4))
STACK = jax.random.normal(jax.random.key(0), (6, 4, 4))
BACKWARDS = [5, 4, 3, 2, 1, 0]


def block(x, w):
    return jnp.tanh(x @ w)


def scan(x, stack):
    return lax.scan(lambda x, w: (block(x, w), None), x, stack)[0]


CANNOT_TELL = {
    "sort": lambda p, x: scan(x, jnp.sort(p["s"], axis=0)),
    "cumsum": lambda p, x: scan(x, jnp.cumsum(p["s"], axis=0)),
    "argsort": lambda p, x: scan(x, p["s"][jnp.argsort(jnp.abs(p["s"]).sum((1, 2)))]),
    "fft": lambda p, x: scan(x, jnp.fft.fft(p["s"], axis=0).real),
    "gather": lambda p, x: scan(x, p["s"][p["index"] - jnp.arange(4)]),
    "dynamic_slice": lambda p, x: block(x, p["s"][p["index"]]),
    "reduce_sum": lambda p, x: scan(x, p["s"] / jnp.linalg.norm(p["s"])),
    "reduce_max": lambda p, x: scan(x, jax.nn.softmax(p["s"], axis=0)),
}


@pytest.mark.parametrize("operation", CANNOT_TELL)
def test_an_order_that_cannot_be_known_is_an_error_that_names_leaf_and_operation(operation):
    params = {"s": STACK, "index": jnp.array(3)}
    name = operation.replace("argsort", "sort")
    with pytest.raises(ValueError, match=f"'s'.*'{name}'"):
        layer_depths(CANNOT_TELL[operation], params, X, rotate="stacked_layer")


def test_layers_written_into_an_array_at_unknown_places_are_an_error():
    params = {"a": STACK[0], "b": STACK[1], "index": jnp.array(3)}
    fill = lambda p: jnp.zeros((6, 4, 4)).at[p["index"]].set(p["a"]).at[p["index"] + 1].set(p["b"])
    with pytest.raises(ValueError, match=r"'a', 'b'.*'scatter'"):
        layer_depths(lambda p, x: scan(x, fill(p)), params, X)


def test_what_is_merged_and_used_at_once_needs_no_order():
    used = lambda f: lambda s, x: jnp.einsum("bi,nij->nbj", x, f(s))
    for f in (lambda s: jnp.sort(s, axis=0), lambda s: s / jnp.linalg.norm(s), lambda s: jnp.cumsum(s, 0)):
        np.testing.assert_array_equal(layer_depths(used(f), STACK, X, rotate="stacked_layer"), [0] * 6)

    # Each third of the product comes from all of `down`, whose first use is that of the first third.
    def fused(p, x):
        query, key, value = jnp.split(p["down"] @ p["up"], 3, axis=1)
        return (x @ query + x @ key + x @ value) @ p["out"]

    params = {"down": jnp.ones((4, 2)), "up": jnp.ones((2, 12)), "out": jnp.ones((4, 4))}
    depths = layer_depths(fused, params, X, rotate="neuron")
    np.testing.assert_array_equal(depths["down"], [0, 0])
    np.testing.assert_array_equal(depths["up"], np.repeat([0, 1, 2], 4))
    np.testing.assert_array_equal(depths["out"], [3] * 4)


def test_vectors_that_met_the_inputs_before_may_be_merged_afterwards():
    def with_penalty(s, x):
        y = scan(x, s[::-1])
        return y.sum() + lax.scan(lambda c, w: (c + (w * y.sum()).sum(), None), 0.0, jnp.sort(s, axis=0))[0]

    np.testing.assert_array_equal(layer_depths(with_penalty, STACK, X, rotate="stacked_layer"), BACKWARDS)
    gradient = jax.grad(lambda s, x: scan(x, s[::-1]).sum())
    np.testing.assert_array_equal(layer_depths(gradient, STACK, X, rotate="stacked_layer"), BACKWARDS)


@pytest.mark.parametrize("axis", [None, 1])
def test_a_normalised_embedding_of_32_000_rows_takes_linear_memory(axis):
    def fn(params, tokens):
        table = params["embedding"]
        table = table / jnp.linalg.norm(table, axis=axis, keepdims=True)
        return table[tokens] @ params["head"] @ table.T

    params = {
        "embedding": jax.ShapeDtypeStruct((32_000, 64), jnp.float32),
        "head": jax.ShapeDtypeStruct((64, 64), jnp.float32),
    }
    rotate = lambda path, leaf: (0,) if path == "embedding" else ()
    tracemalloc.start()
    try:
        depths = layer_depths(fn, params, jnp.zeros(3, int), rotate=rotate)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(depths["embedding"], np.zeros(32_000))
    assert depths["head"] == 1
    # A table of 32,000 x 32,000 bytes would be 1 GB.
    assert peak < 100 * 2**20


LAYERS = {name: jnp.ones((4, 4)) for name in ("body", "head", "stem")}


def called(params, x):
    for name in ("stem", "body", "head"):
        x = jnp.tanh(x @ params[name])
    return x


def noisy(params, key, x):
    """Adds noise to all weights first, in the order of the dictionary."""
    noise = lambda name, w: w + 0.01 * jax.random.normal(jax.random.fold_in(key, len(name)), w.shape)
    return called({name: noise(name, w) for name, w in params.items()}, x)


@pytest.mark.parametrize("key", [jax.random.key(0), jax.random.PRNGKey(0), jax.random.key(0, impl="rbg")])
def test_random_keys_do_not_count_as_inputs(key):
    expected = {"body": 1, "head": 2, "stem": 0}
    assert layer_depths(noisy, LAYERS, key, X) == expected
    assert layer_depths(lambda p, keys, x: noisy(p, keys[1], x), LAYERS, jax.random.split(key), X) == expected


def test_dropout_of_weights_with_the_keys_of_nnx():
    def fn(params, rngs, x):
        drop = lambda w: w * jax.random.bernoulli(rngs.dropout(), 0.9, w.shape)
        return called(jax.tree.map(drop, params), x)

    graphdef, state = nnx.split(nnx.Rngs(dropout=0))
    depths = layer_depths(lambda p, state, x: fn(p, nnx.merge(graphdef, state), x), LAYERS, state, X)
    assert depths == {"body": 1, "head": 2, "stem": 0}


def test_a_mask_that_the_function_closes_over_does_not_count_as_an_input():
    masked = lambda params, masks, x: called(jax.tree.map(jnp.multiply, params, masks), x)
    masks = jax.tree.map(jnp.ones_like, LAYERS)
    depths = layer_depths(lambda params, x: masked(params, masks, x), LAYERS, X)
    assert depths == {"body": 1, "head": 2, "stem": 0}


def test_weights_of_a_loop_that_never_runs_are_not_used():
    scanned = lambda p, x: scan(x @ p["stem"], p["stack"][:0])
    params = {"stem": jnp.ones((4, 4)), "stack": STACK}
    rotate = lambda path, leaf: (0,) if path == "stack" else ()
    with pytest.raises(ValueError, match=r"never uses them.*'stack'"):
        layer_depths(scanned, params, X, rotate=rotate)

    def never(p, x):
        ys = lax.scan(lambda c, x: (c, x @ p["body"]), 0, x[None][:0])[1]
        return lax.fori_loop(0, 0, lambda i, x: x @ p["head"], (x + ys.sum()) @ p["stem"])

    with pytest.raises(ValueError, match=r"never uses them.*'body', 'head'"):
        layer_depths(never, LAYERS, X)
