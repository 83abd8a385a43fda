"""The order of blocks that a forward pass rearranges before it uses them."""

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
        # Blocks that the moves have dropped come last, together.
        return jnp.einsum("bi,nij->bj", scan(x, s), rest)

    expected = [used.index(i) if i in used else len(used) for i in range(6)]
    np.testing.assert_array_equal(layer_depths(fn, STACK, X, rotate="stacked_layer"), expected)


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
