"""The order of blocks that a forward pass rearranges before their use; an error where it cannot be known."""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from layca_optax import layer_depths

X = jnp.ones((2, 4))
STACK = jax.random.normal(jax.random.key(0), (6, 4, 4))
ORDER = jnp.array([4, 0, 5, 1, 3, 2])
FORWARDS, BACKWARDS = [0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]
SHARDED = NamedSharding(jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,)), P(None, "d"))
# Block 4 is used first, then block 0, …
BY_ORDER = np.argsort(ORDER).tolist()


def block(x, w):
    return jnp.tanh(x @ w)


def scan(x, stack, **kwargs):
    return lax.scan(lambda x, w: (block(x, w), None), x, stack, **kwargs)[0]


def nested(x, stack):
    outer = lambda x, few: (jax.checkpoint(scan)(x, few), None)
    return lax.scan(outer, x, stack.reshape(2, 3, 4, 4))[0]


def counted(x, body, **kwargs):
    return lax.while_loop(lambda c: c[0] < 6, lambda c: (c[0] + 1, body(c[0], c[1])), (0, x))[1]


def until_converged(x, s):
    go_on = lambda c: (c[0] < 6) & (jnp.sum(c[1]) < 100)
    return lax.while_loop(go_on, lambda c: (c[0] + 1, block(c[1], s[5 - c[0]])), (0, x))[1]


def with_index_in_carry(x, s):
    step = lambda c, _: ((c[0] - 1, block(c[1], s[c[0]])), None)
    return lax.scan(step, (5, x), None, length=6)[0][1]


def bits(w):
    return lax.bitcast_convert_type(lax.bitcast_convert_type(w, jnp.uint8), jnp.float32)


def flat_and_back(s):
    return s.ravel()[: 6 * 16].reshape(6, 4, 4)


def written(s):
    zeros = jnp.zeros_like(s)
    for i in range(6):
        zeros = lax.dynamic_update_slice(zeros, s[i][None], (5 - i, 0, 0))
    return zeros


def normalised(s):
    return s / jnp.linalg.svd(s, compute_uv=False)[:, :1, None]


def orthogonal(s):
    return jnp.linalg.qr(s)[0]


def low_rank(s):
    return jnp.einsum("nij,njk->nik", s, jnp.flip(jnp.flip(s, 0), 0))


WAYS = {
    "slice backwards": (lambda s, x: scan(x, s[::-1]), BACKWARDS),
    "flip": (lambda s, x: scan(x, jnp.flip(s, 0)), BACKWARDS),
    "flip and reverse": (lambda s, x: scan(x, jnp.flip(s, 0), reverse=True), FORWARDS),
    "flip of another axis": (lambda s, x: scan(x, jnp.flip(s, 2)), FORWARDS),
    "roll": (lambda s, x: scan(x, jnp.roll(s, -1, axis=0)), [5, 0, 1, 2, 3, 4]),
    "take": (lambda s, x: scan(x, jnp.take(s, ORDER, axis=0)), BY_ORDER),
    "index by an array": (lambda s, x: scan(x, s[ORDER]), BY_ORDER),
    "index by a list, from the end": (lambda s, x: scan(x, s[np.array([-2, 0, -1, 1, 3, 2])]), BY_ORDER),
    "take along another axis": (
        lambda s, x: scan(x, jnp.take(s.transpose(1, 0, 2), ORDER, axis=1).swapaxes(0, 1)),
        BY_ORDER,
    ),
    "take_along_axis": (
        lambda s, x: scan(x, jnp.take_along_axis(s, ORDER[:, None, None], axis=0)),
        BY_ORDER,
    ),
    "vmapped index": (lambda s, x: scan(x, jax.vmap(lambda i: s[i])(ORDER)), BY_ORDER),
    "computed order": (lambda s, x: scan(x, s[(jnp.arange(6) * 5) % 6]), [0, 5, 4, 3, 2, 1]),
    "order from a constant key": (
        lambda s, x: scan(x, s[jax.random.permutation(jax.random.key(3), 6)]),
        np.argsort(jax.random.permutation(jax.random.key(3), 6)).tolist(),
    ),
    "fori_loop": (lambda s, x: lax.fori_loop(0, 6, lambda i, x: block(x, s[i]), x), FORWARDS),
    "fori_loop backwards": (lambda s, x: lax.fori_loop(0, 6, lambda i, x: block(x, s[5 - i]), x), BACKWARDS),
    "fori_loop by an order": (
        lambda s, x: lax.fori_loop(0, 6, lambda i, x: block(x, s[ORDER[i]]), x),
        BY_ORDER,
    ),
    "fori_loop of unknown length": (
        lambda s, x: lax.fori_loop(0, jnp.int32(x.sum()), lambda i, x: block(x, s[5 - i]), x),
        BACKWARDS,
    ),
    "jitted fori_loop": (
        lambda s, x: jax.jit(lambda s, n: lax.fori_loop(0, n, lambda i, x: block(x, s[5 - i]), x))(s, 6),
        BACKWARDS,
    ),
    "dynamic_index_in_dim": (
        lambda s, x: lax.fori_loop(0, 6, lambda i, x: block(x, lax.dynamic_index_in_dim(s, i, 0, False)), x),
        FORWARDS,
    ),
    "while": (lambda s, x: counted(x, lambda i, x: block(x, s[5 - i])), BACKWARDS),
    "while it has not converged": (lambda s, x: until_converged(x, s), BACKWARDS),
    "scan over indices": (
        lambda s, x: lax.scan(lambda x, i: (block(x, s[i]), None), x, jnp.arange(6))[0],
        FORWARDS,
    ),
    "scan over an order": (
        lambda s, x: lax.scan(lambda x, i: (block(x, s[i]), None), x, ORDER)[0],
        BY_ORDER,
    ),
    "index in the carry": (lambda s, x: with_index_in_carry(x, s), BACKWARDS),
    "checkpointed loop": (
        lambda s, x: lax.fori_loop(0, 6, lambda i, x: jax.checkpoint(lambda x, i: block(x, s[i]))(x, i), x),
        FORWARDS,
    ),
    "two blocks per iteration": (
        lambda s, x: lax.fori_loop(0, 3, lambda i, x: block(block(x, s[2 * i + 1]), s[2 * i]), x),
        [1, 0, 3, 2, 5, 4],
    ),
    "nested remat": (lambda s, x: nested(x, s), FORWARDS),
    "nested remat backwards": (lambda s, x: nested(x, s[::-1]), BACKWARDS),
    "columns of a table of blocks": (
        lambda s, x: scan(x, s.reshape(2, 3, 4, 4).swapaxes(0, 1).reshape(6, 4, 4)),
        [0, 2, 4, 1, 3, 5],
    ),
    "flat and back": (lambda s, x: scan(x, flat_and_back(s)), FORWARDS),
    "switch on the counter": (
        lambda s, x: lax.fori_loop(
            0,
            6,
            lambda i, x: lax.switch(5 - i, [lambda x, w=w: block(x, w) for w in s], x),
            x,
        ),
        BACKWARDS,
    ),
    "stop_gradient": (lambda s, x: scan(x, lax.stop_gradient(s)), FORWARDS),
    "bits": (lambda s, x: scan(x, bits(s)), FORWARDS),
    "written by index": (
        lambda s, x: scan(x, jnp.zeros_like(s).at[5 - jnp.arange(6)].set(s)),
        BACKWARDS,
    ),
    "written in a loop": (
        lambda s, x: scan(x, lax.fori_loop(0, 6, lambda i, b: b.at[5 - i].set(s[i]), jnp.zeros_like(s))),
        BACKWARDS,
    ),
    "repeated": (lambda s, x: scan(x, jnp.repeat(jnp.tile(s[::-1], (2, 1, 1)), 2, axis=0)), BACKWARDS),
    "named": (lambda s, x: scan(x, checkpoint_name(s, "weights")[::-1]), BACKWARDS),
    "constrained": (lambda s, x: scan(x, lax.with_sharding_constraint(s, SHARDED)[::-1]), BACKWARDS),
    "gathered from devices": (
        jax.shard_map(
            lambda s, x: scan(x, lax.all_gather(s, "d", axis=1, tiled=True)[::-1]),
            mesh=SHARDED.mesh,
            in_specs=(SHARDED.spec, P()),
            out_specs=P(),
            check_vma=False,
        ),
        BACKWARDS,
    ),
    "indexed on devices": (
        jax.shard_map(
            lambda s, x: lax.fori_loop(0, 6, lambda i, x: block(x, s[5 - i]), x),
            mesh=SHARDED.mesh,
            in_specs=P(),
            out_specs=P(),
        ),
        BACKWARDS,
    ),
    "written into zeros": (lambda s, x: scan(x, written(s)), BACKWARDS),
    "padded": (lambda s, x: scan(x, lax.pad(s, 0.0, [(2, 1, 1), (0, 0, 0), (0, 0, 0)])[::-1]), BACKWARDS),
    "spectral norm": (lambda s, x: scan(x, normalised(s)), FORWARDS),
    "orthogonalised": (lambda s, x: scan(x, orthogonal(s)), FORWARDS),
    "product of stacks": (lambda s, x: scan(x, low_rank(s)), FORWARDS),
    "sorted inside of blocks": (lambda s, x: scan(x, jnp.sort(s, axis=2)), FORWARDS),
    "summed inside of blocks": (lambda s, x: scan(x, jnp.cumsum(s, axis=1)), FORWARDS),
    "centred": (lambda s, x: scan(x, s - s.mean((1, 2), keepdims=True)), FORWARDS),
}


@pytest.mark.parametrize(("fn", "expected"), WAYS.values(), ids=WAYS)
def test_blocks_are_numbered_in_the_order_of_their_use(fn, expected):
    depths = layer_depths(fn, STACK, X, rotate="stacked_layer")
    np.testing.assert_array_equal(depths, expected)


@pytest.mark.parametrize(
    "elementwise",
    [
        *(jnp.floor, jnp.ceil, jnp.trunc, jnp.cbrt, jnp.arctan, jnp.sinh, jnp.tan, lax.erf_inv, lax.lgamma),
        *(lax.stop_gradient, jnp.conj, jnp.copy, jnp.isnan, jax.nn.gelu, jax.nn.softplus, jnp.signbit),
        lambda w: jnp.remainder(w, 0.5),
        lambda w: jnp.arctan2(w, 1.0),
        lambda w: jnp.nextafter(w, w + 1),
        lambda w: lax.betainc(w, w, w),
        lambda w: lax.shift_left(w.astype(jnp.int32), 1),
        lambda w: lax.population_count(w.astype(jnp.uint32)),
        lambda w: lax.complex(w, w).imag,
        lambda w: lax.optimization_barrier(w),
        lambda w: lax.reduce_precision(w, 5, 2),
        lambda w: jnp.where(w > 0, w, 0.0),
        lambda w: jnp.clip(w, -1, 1),
    ],
)
def test_every_elementwise_operation_keeps_the_order(elementwise):
    fn = lambda s, x: scan(x, elementwise(s).astype(jnp.float32)[::-1])
    np.testing.assert_array_equal(layer_depths(fn, STACK, X, rotate="stacked_layer"), BACKWARDS)


def test_heads_and_blocks_are_followed_together():
    """A rule with two enumerated axes, of which a normalisation sums one."""
    kernel = jnp.ones((3, 4, 2, 4))  # blocks, inputs, heads, entries of a head
    rotate = lambda path, leaf: (0, 2)

    def fn(kernel, x):
        kernel = kernel / jnp.linalg.norm(kernel.reshape(3, -1), axis=1)[:, None, None, None]
        for block in kernel[::-1]:
            x = x @ block[:, 0] @ block[:, 1]
        return x

    # The norm of a block comes from both of its heads: its first use counts for both.
    with pytest.raises(ValueError, match=r"'\.'.*'reduce_sum'"):
        layer_depths(fn, kernel, X, rotate=rotate)
    whole = lambda kernel, x: scan(x, (kernel / kernel.sum((1, 2), keepdims=True)).sum(2)[::-1])
    np.testing.assert_array_equal(layer_depths(whole, kernel, X, rotate=rotate), [[2, 2], [1, 1], [0, 0]])


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


def test_layers_that_are_written_into_one_array_nobody_knows_where_are_an_error():
    params = {"a": STACK[0], "b": STACK[1], "index": jnp.array(3)}
    fill = lambda p: jnp.zeros((6, 4, 4)).at[p["index"]].set(p["a"]).at[p["index"] + 1].set(p["b"])
    with pytest.raises(ValueError, match=r"'a', 'b'.*'scatter'"):
        layer_depths(lambda p, x: scan(x, fill(p)), params, X)


def test_what_is_merged_and_used_at_once_needs_no_order():
    used = lambda f: lambda s, x: jnp.einsum("bi,nij->nbj", x, f(s))
    for f in (lambda s: jnp.sort(s, axis=0), lambda s: s / jnp.linalg.norm(s), lambda s: jnp.cumsum(s, 0)):
        np.testing.assert_array_equal(layer_depths(used(f), STACK, X, rotate="stacked_layer"), [0] * 6)

    # Every third of the product comes from all of `down`, which therefore counts at the first.
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
    """Weights with noise, all of them up front, in the order of the dictionary."""
    noise = lambda name, w: w + 0.01 * jax.random.normal(jax.random.fold_in(key, len(name)), w.shape)
    return called({name: noise(name, w) for name, w in params.items()}, x)


@pytest.mark.parametrize("key", [jax.random.key(0), jax.random.PRNGKey(0), jax.random.key(0, impl="rbg")])
def test_random_keys_are_no_inputs(key):
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


def test_a_mask_that_the_function_closes_over_is_no_input():
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
