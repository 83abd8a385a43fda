"""Tests that layers have the depth that a reader would give them, however the forward pass is written."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from layca_optax import layer_depths

X = jnp.ones((2, 4))
# In alphabetical order these are not in the order of their calls.
NAMES = ["stem", "body", "head"]
EXPECTED = {"bias": -1, "body": 1, "head": 2, "stem": 0}


def make_params():
    return {name: jnp.ones((4, 4)) for name in NAMES} | {"bias": jnp.ones(4)}


def plain(params, x):
    for name in NAMES:
        x = jax.nn.relu(x @ params[name]) + params["bias"][None]
    return x


def with_custom_vjp(params, x):
    f = jax.custom_vjp(plain)
    f.defvjp(lambda p, x: (plain(p, x), x), lambda x, g: (make_params(), g))
    return f(params, x)


def with_custom_jvp(params, x):
    f = jax.custom_jvp(plain)
    f.defjvp(lambda primals, tangents: (plain(*primals), tangents[1]))
    return f(params, x)


def cast_up_front(params, x):
    return plain(jax.tree.map(lambda w: w.astype(jnp.bfloat16), params), x)


def normalised_up_front(params, x):
    return plain(jax.tree.map(lambda w: w / jnp.linalg.norm(w), params), x)


def under_cond(params, x):
    stem, rest = x @ params["stem"], {**params, "stem": jnp.eye(4)}
    return jax.lax.cond(x.sum() > 0, lambda: plain(rest, stem), lambda: stem)


def under_while(params, x):
    return jax.lax.while_loop(lambda x: x.sum() < 3, lambda x: plain(params, x), x)


def sharded(params, x):
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec
    return jax.shard_map(plain, mesh=mesh, in_specs=(spec(), spec("data")), out_specs=spec("data"))(params, x)


def gradient(params, x):
    return jax.grad(lambda p: plain(p, x).sum())(params)


@pytest.mark.parametrize(
    "fn",
    [
        plain,
        jax.jit(plain),
        jax.jit(lambda p, x: jax.jit(plain)(p, x)),
        jax.checkpoint(plain),
        with_custom_vjp,
        with_custom_jvp,
        cast_up_front,
        normalised_up_front,
        under_cond,
        under_while,
        sharded,
        gradient,
    ],
)
def test_forward_order_however_it_is_written(fn):
    assert layer_depths(fn, make_params(), X) == EXPECTED


def test_shapes_are_enough_and_leaves_need_no_names():
    shape = jax.ShapeDtypeStruct((4, 4), jnp.float32)
    assert layer_depths(lambda p, x: x @ p[1] @ p[0], [shape, shape], X) == [1, 0]
    assert layer_depths(lambda w, x: x @ w, shape, jax.ShapeDtypeStruct((2, 4), jnp.float32)) == 0


def test_a_shared_weight_counts_where_it_is_used_first():
    def tied(params, tokens):
        x = params["embedding"][tokens]
        return x @ params["block"] @ params["embedding"].T

    params = {"block": jnp.ones((4, 4)), "embedding": jnp.ones((7, 4))}
    assert layer_depths(tied, params, jnp.zeros(3, int)) == {"block": 1, "embedding": 0}


def test_leaves_that_are_first_met_together_share_a_depth():
    def low_rank(params, x):
        return x @ (params["down"] @ params["up"]) @ params["last"]

    params = {name: jnp.ones((4, 4)) for name in ["down", "up", "last"]}
    assert layer_depths(low_rank, params, X) == {"down": 0, "last": 1, "up": 0}


class Deep(nn.Module):
    @nn.compact
    def __call__(self, x):
        for _ in range(12):
            x = nn.relu(nn.Dense(4)(x))
        return x


class DeepNNX(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List(nnx.Linear(4, 4, rngs=rngs) for _ in range(12))
        self.norm = nnx.LayerNorm(4, rngs=rngs)

    def __call__(self, x):
        for layer in self.layers:
            x = self.norm(layer(x))
        return x


def test_more_than_ten_layers_in_linen():
    model = Deep()
    params = jax.eval_shape(model.init, jax.random.key(0), X)["params"]
    assert list(params).index("Dense_10") < list(params).index("Dense_2")
    depths = layer_depths(lambda p, x: model.apply({"params": p}, x), params, X)
    assert depths == {f"Dense_{i}": {"kernel": i, "bias": -1} for i in range(12)}


def test_more_than_ten_layers_in_nnx():
    graphdef, state = nnx.split(DeepNNX(nnx.Rngs(0)))
    depths = layer_depths(lambda state, x: nnx.merge(graphdef, state)(x), state, X)
    pure = nnx.to_pure_dict(depths)
    assert [pure["layers"][i]["kernel"] for i in range(12)] == list(range(12))
    assert pure["norm"] == {"bias": -1, "scale": -1}


STACK = {"b": jnp.ones((3, 4)), "u": jnp.ones((3, 4, 4)), "w": jnp.ones((3, 4, 4))}


def block(x, p):
    return jnp.tanh(x @ p["w"] @ p["u"]) + p["b"][None], None


def scanned(p, x, **kwargs):
    return jax.lax.scan(block, x, p, **kwargs)[0]


def looped(p, x):
    for i in range(3):
        x, _ = block(x, jax.tree.map(lambda a, i=i: a[i], p))
    return x


def unstacked(p, x):
    for w, u, b in zip(p["w"], p["u"], p["b"], strict=True):
        x, _ = block(x, {"w": w, "u": u, "b": b})
    return x


def cast_and_scanned(p, x):
    half = jax.tree.map(lambda a: (2 * a).astype(jnp.bfloat16), p)
    return jax.checkpoint(scanned)(half, x.astype(jnp.bfloat16))


def normalised_and_scanned(p, x):
    return scanned({**p, "w": p["w"] / jnp.abs(p["w"]).sum((1, 2), keepdims=True)}, x)


def split_and_scanned(p, x):
    x = scanned(jax.tree.map(lambda a: a[:1], p), x)
    return scanned(jax.tree.map(lambda a: a.reshape(3, -1)[1:].reshape(-1, *a.shape[1:]), p), x)


@pytest.mark.parametrize(
    "fn", [scanned, looped, unstacked, cast_and_scanned, normalised_and_scanned, split_and_scanned]
)
def test_stacks_go_block_by_block(fn):
    depths = layer_depths(fn, STACK, X, rotate="stacked_layer")
    assert depths["b"] == -1
    np.testing.assert_array_equal(depths["w"], [0, 2, 4])
    np.testing.assert_array_equal(depths["u"], [1, 3, 5])
    assert depths["w"].dtype == np.int32


def test_a_reversed_scan_starts_with_the_last_block():
    depths = layer_depths(functools.partial(scanned, reverse=True), STACK, X, rotate="stacked_layer")
    np.testing.assert_array_equal(depths["w"], [4, 2, 0])
    np.testing.assert_array_equal(depths["u"], [5, 3, 1])


def test_a_stack_that_is_one_vector_counts_at_its_first_block():
    kernels = {"u": jnp.ones((3, 4, 4)), "w": jnp.ones((3, 4, 4))}
    no_bias = lambda p, x: scanned({**p, "b": jnp.zeros((3, 4))}, x)
    assert layer_depths(no_bias, kernels, X) == {"u": 1, "w": 0}


def test_layers_stacked_on_the_way_keep_their_order():
    def stacked(p, x):
        ws = jnp.stack([p["z"], p["a"], p["m"]])
        return jax.lax.scan(lambda x, w: (x @ w, None), x, ws)[0]

    params = {name: jnp.ones((4, 4)) for name in "amz"}
    assert layer_depths(stacked, params, X) == {"a": 1, "m": 2, "z": 0}


def test_a_stack_that_is_used_at_once_has_one_depth():
    ensemble = lambda p, x: jax.vmap(lambda w, u: x @ w @ u)(p["w"], p["u"])
    depths = layer_depths(ensemble, {"u": STACK["u"], "w": STACK["w"]}, X, rotate="stacked_layer")
    np.testing.assert_array_equal(depths["w"], [0, 0, 0])
    np.testing.assert_array_equal(depths["u"], [1, 1, 1])


@pytest.mark.parametrize("axis", [0, 1])
def test_linen_scan_along_any_axis(axis):
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.Dense(4, name="second")(nn.Dense(4, name="first")(x)), None

    model = nn.scan(Block, variable_axes={"params": axis}, split_rngs={"params": True}, length=3)()
    params = model.init(jax.random.key(0), X, None)["params"]
    rotate = lambda path, leaf: (axis,) if leaf.ndim == 3 else None
    depths = layer_depths(lambda p, x: model.apply({"params": p}, x, None)[0], params, X, rotate=rotate)
    np.testing.assert_array_equal(depths["first"]["kernel"], [0, 2, 4])
    np.testing.assert_array_equal(depths["second"]["kernel"], [1, 3, 5])


def test_weights_of_a_scan_over_time_count_where_they_are_first_used():
    def recurrent(p, xs):
        step = lambda h, x: (jnp.tanh(h @ p["hidden"] + x @ p["input"]),) * 2
        hs = jax.lax.scan(step, jnp.zeros((2, 4)), xs)[1]
        return hs @ p["out"]

    params = {name: jnp.ones((4, 4)) for name in ["hidden", "input", "out"]}
    xs = jnp.ones((100_000, 2, 4))
    # The first hidden state does not depend on the inputs, so `hidden` meets them at the addition.
    assert layer_depths(recurrent, params, xs) == {"hidden": 1, "input": 0, "out": 2}


def test_neurons_of_a_kernel_share_its_depth():
    depths = layer_depths(plain, make_params(), X, rotate="neuron")
    np.testing.assert_array_equal(depths["head"], [2, 2, 2, 2])


def test_a_rotating_leaf_that_is_not_used_is_an_error_that_names_it():
    unused = {**make_params(), "forgotten": {"kernel": jnp.ones((4, 4))}}
    with pytest.raises(ValueError, match="'forgotten/kernel'"):
        layer_depths(plain, unused, X)
    with pytest.raises(ValueError, match=r"'body', 'head', 'stem'.*as args"):
        layer_depths(lambda p: plain(p, X), make_params())
    with pytest.raises(ValueError, match=r"'w' \(vectors \[2\]\)"):
        layer_depths(lambda p, x: x @ p["w"][0] @ p["w"][1], {"w": STACK["w"]}, X, rotate="stacked_layer")
    with pytest.raises(ValueError, match="did you mean 'layer'"):
        layer_depths(plain, make_params(), X, rotate="layers")


def test_pieces_of_a_fused_kernel_have_depths_of_their_own():
    def model(params, x):
        query, key, value = jnp.split(x @ params["first"] @ params["qkv"], 3, axis=-1)
        return query, key, value

    def apart(params, x):
        query, key, value = jnp.split(params["qkv"], 3, axis=-1)
        return ((x @ value) @ key) @ query

    params = {"qkv": jnp.ones((4, 12)), "first": jnp.ones((4, 4))}
    rule = lambda path, leaf: ((1, 3),) if path == "qkv" else ()
    depths = layer_depths(model, params, jnp.ones((1, 4)), rotate=rule)
    assert depths["first"] == 0
    np.testing.assert_array_equal(depths["qkv"], [1, 1, 1])
    depths = layer_depths(apart, {"qkv": params["qkv"]}, jnp.ones((1, 4)), rotate=rule)
    np.testing.assert_array_equal(depths["qkv"], [2, 1, 0])
