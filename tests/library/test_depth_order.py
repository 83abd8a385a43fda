"""Tests the order of blocks that a forward pass rearranges before it uses them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
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


def nested(s, x):
    outer = lambda x, few: (jax.checkpoint(scan)(x, few), None)
    return lax.scan(outer, x, s.reshape(2, 3, 4, 4))[0]


def loop(x, body, length=6):
    return lax.fori_loop(0, length, body, x)


def by_indices(s, x, indices):
    return lax.scan(lambda x, i: (block(x, s[i]), None), x, indices)[0]


def counted(x, body):
    return lax.while_loop(lambda c: c[0] < 6, lambda c: (c[0] + 1, body(c[0], c[1])), (0, x))[1]


def until_converged(s, x):
    go_on = lambda c: (c[0] < 6) & (jnp.sum(c[1]) < 100)
    return lax.while_loop(go_on, lambda c: (c[0] + 1, block(c[1], s[5 - c[0]])), (0, x))[1]


def with_index_in_carry(s, x):
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


# How a stack is rearranged before a scan over its blocks, and the depths of the blocks.
REARRANGED = {
    "slice backwards": (lambda s: s[::-1], BACKWARDS),
    "flip": (lambda s: jnp.flip(s, 0), BACKWARDS),
    "flip of another axis": (lambda s: jnp.flip(s, 2), FORWARDS),
    "roll": (lambda s: jnp.roll(s, -1, axis=0), [5, 0, 1, 2, 3, 4]),
    "take": (lambda s: jnp.take(s, ORDER, axis=0), BY_ORDER),
    "index by an array": (lambda s: s[ORDER], BY_ORDER),
    "index by a list, from the end": (lambda s: s[np.array([-2, 0, -1, 1, 3, 2])], BY_ORDER),
    "take along another axis": (
        lambda s: jnp.take(s.transpose(1, 0, 2), ORDER, axis=1).swapaxes(0, 1),
        BY_ORDER,
    ),
    "take_along_axis": (lambda s: jnp.take_along_axis(s, ORDER[:, None, None], axis=0), BY_ORDER),
    "vmapped index": (lambda s: jax.vmap(lambda i: s[i])(ORDER), BY_ORDER),
    "computed order": (lambda s: s[(jnp.arange(6) * 5) % 6], [0, 5, 4, 3, 2, 1]),
    "order from a constant key": (
        lambda s: s[jax.random.permutation(jax.random.key(3), 6)],
        np.argsort(jax.random.permutation(jax.random.key(3), 6)).tolist(),
    ),
    "columns of a table of blocks": (
        lambda s: s.reshape(2, 3, 4, 4).swapaxes(0, 1).reshape(6, 4, 4),
        [0, 2, 4, 1, 3, 5],
    ),
    "flat and back": (flat_and_back, FORWARDS),
    "stop_gradient": (lax.stop_gradient, FORWARDS),
    "bits": (bits, FORWARDS),
    "written by index": (lambda s: jnp.zeros_like(s).at[5 - jnp.arange(6)].set(s), BACKWARDS),
    "written in a loop": (
        lambda s: lax.fori_loop(0, 6, lambda i, b: b.at[5 - i].set(s[i]), jnp.zeros_like(s)),
        BACKWARDS,
    ),
    "written into zeros": (written, BACKWARDS),
    "repeated": (lambda s: jnp.repeat(jnp.tile(s[::-1], (2, 1, 1)), 2, axis=0), BACKWARDS),
    "named": (lambda s: checkpoint_name(s, "weights")[::-1], BACKWARDS),
    "constrained": (lambda s: lax.with_sharding_constraint(s, SHARDED)[::-1], BACKWARDS),
    "padded": (lambda s: lax.pad(s, 0.0, [(2, 1, 1), (0, 0, 0), (0, 0, 0)])[::-1], BACKWARDS),
    "spectral norm": (normalised, FORWARDS),
    "orthogonalised": (orthogonal, FORWARDS),
    "product of stacks": (low_rank, FORWARDS),
    "sorted inside of blocks": (lambda s: jnp.sort(s, axis=2), FORWARDS),
    "summed inside of blocks": (lambda s: jnp.cumsum(s, axis=1), FORWARDS),
    "centred": (lambda s: s - s.mean((1, 2), keepdims=True), FORWARDS),
}
# How blocks are called one after the other, and their depths.
CALLED = {
    "flip and reverse": (lambda s, x: scan(x, jnp.flip(s, 0), reverse=True), FORWARDS),
    "nested remat": (nested, FORWARDS),
    "nested remat backwards": (lambda s, x: nested(s[::-1], x), BACKWARDS),
    "fori_loop": (lambda s, x: loop(x, lambda i, x: block(x, s[i])), FORWARDS),
    "fori_loop backwards": (lambda s, x: loop(x, lambda i, x: block(x, s[5 - i])), BACKWARDS),
    "fori_loop by an order": (lambda s, x: loop(x, lambda i, x: block(x, s[ORDER[i]])), BY_ORDER),
    "fori_loop of unknown length": (
        lambda s, x: loop(x, lambda i, x: block(x, s[5 - i]), jnp.int32(x.sum())),
        BACKWARDS,
    ),
    "jitted fori_loop": (
        lambda s, x: jax.jit(lambda s, n: loop(x, lambda i, x: block(x, s[5 - i]), n))(s, 6),
        BACKWARDS,
    ),
    "dynamic_index_in_dim": (
        lambda s, x: loop(x, lambda i, x: block(x, lax.dynamic_index_in_dim(s, i, 0, False))),
        FORWARDS,
    ),
    "checkpointed loop": (
        lambda s, x: loop(x, lambda i, x: jax.checkpoint(lambda x, i: block(x, s[i]))(x, i)),
        FORWARDS,
    ),
    "two blocks per iteration": (
        lambda s, x: loop(x, lambda i, x: block(block(x, s[2 * i + 1]), s[2 * i]), 3),
        [1, 0, 3, 2, 5, 4],
    ),
    "switch on the counter": (
        lambda s, x: loop(x, lambda i, x: lax.switch(5 - i, [lambda x, w=w: block(x, w) for w in s], x)),
        BACKWARDS,
    ),
    "while": (lambda s, x: counted(x, lambda i, x: block(x, s[5 - i])), BACKWARDS),
    "while it has not converged": (until_converged, BACKWARDS),
    "scan over indices": (lambda s, x: by_indices(s, x, jnp.arange(6)), FORWARDS),
    "scan over an order": (lambda s, x: by_indices(s, x, ORDER), BY_ORDER),
    "index in the carry": (with_index_in_carry, BACKWARDS),
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
            lambda s, x: loop(x, lambda i, x: block(x, s[5 - i])),
            mesh=SHARDED.mesh,
            in_specs=P(),
            out_specs=P(),
        ),
        BACKWARDS,
    ),
}


@pytest.mark.parametrize(("rearrange", "expected"), REARRANGED.values(), ids=REARRANGED)
def test_rearranged_blocks_are_numbered_in_the_order_of_their_use(rearrange, expected):
    depths = layer_depths(lambda s, x: scan(x, rearrange(s)), STACK, X, rotate="stacked_layer")
    np.testing.assert_array_equal(depths, expected)


@pytest.mark.parametrize(("fn", "expected"), CALLED.values(), ids=CALLED)
def test_blocks_are_numbered_in_the_order_of_their_calls(fn, expected):
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


MOVES = [
    lambda np, s: np.flip(s, 0),
    lambda np, s: np.roll(s, 2, axis=0),
    lambda np, s: np.take(s, np.array([4, 0, 5, 1, 3, 2]), axis=0),
    lambda np, s: np.take(s.swapaxes(0, 2), np.array([1, 1, 5, 4, 0, 2]), axis=2).swapaxes(0, 2),
    lambda np, s: s.reshape(2, 3, 4, 4).swapaxes(0, 1).reshape(6, 4, 4),
    lambda np, s: s.transpose(2, 0, 1).reshape(4, 3, 8)[:, ::-1].reshape(4, 6, 4).transpose(1, 2, 0),
    lambda np, s: np.concatenate([s[3:], s[:3]]),
    lambda np, s: np.stack(list(s)[::-1]),
    lambda np, s: np.repeat(s, 2, axis=0)[::2],
    lambda np, s: np.pad(s, ((1, 1), (0, 0), (0, 0)))[1:-1][::-1],
    lambda np, s: np.concatenate([np.split(s, 3)[1], s[:2], s[4:]]),
]


@pytest.mark.parametrize("seed", range(20))
def test_any_chain_of_moves_gives_the_order_that_numpy_has(seed):
    moves = [MOVES[i] for i in np.random.default_rng(seed).integers(len(MOVES), size=4)]
    numbers = np.broadcast_to(np.arange(6)[:, None, None], (6, 4, 4))
    for move in moves:
        numbers = move(np, numbers)
    used = list(dict.fromkeys(numbers[:, 0, 0].tolist()))

    def fn(s, x):
        rest = s
        for move in moves:
            s = move(jnp, s)
        # Blocks that the moves dropped are used last, all at once.
        return jnp.einsum("bi,nij->bj", scan(x, s), rest)

    expected = [used.index(i) if i in used else len(used) for i in range(6)]
    np.testing.assert_array_equal(layer_depths(fn, STACK, X, rotate="stacked_layer"), expected)


def test_heads_and_blocks_are_followed_together():
    """The rule enumerates two axes; a normalisation sums over one of them."""
    kernel = jnp.ones((3, 4, 2, 4))  # blocks, inputs, heads, entries of a head
    rotate = lambda path, leaf: (0, 2)

    def fn(kernel, x):
        kernel = kernel / jnp.linalg.norm(kernel.reshape(3, -1), axis=1)[:, None, None, None]
        for block in kernel[::-1]:
            x = x @ block[:, 0] @ block[:, 1]
        return x

    # The norm of a block depends on both of its heads, so that both count at its first use.
    with pytest.raises(ValueError, match=r"'\.'.*'reduce_sum'"):
        layer_depths(fn, kernel, X, rotate=rotate)
    whole = lambda kernel, x: scan(x, (kernel / kernel.sum((1, 2), keepdims=True)).sum(2)[::-1])
    np.testing.assert_array_equal(layer_depths(whole, kernel, X, rotate=rotate), [[2, 2], [1, 1], [0, 0]])
