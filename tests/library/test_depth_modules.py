"""Tests the layer order of modules of Flax NNX, Linen and Equinox, and of a dataclass."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx

from layca_optax import layer_depths

X = jnp.ones((2, 4))
IMAGES = jnp.ones((2, 8, 8, 3))


def depths_of_nnx(build, *args, rotate="layer"):
    """Returns the depth of every kernel of a module by path, without making weights."""
    graphdef, params, rest = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))), nnx.Param, ...)
    apply = lambda params, rest, *args: nnx.merge(graphdef, params, rest, copy=True)(*args)
    tree = layer_depths(apply, params, rest, *args, rotate=rotate)
    return rotating(nnx.to_pure_dict(tree))


def rotating(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    names = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    return {name: np.asarray(leaf).tolist() for name, leaf in names.items() if np.all(leaf >= 0)}


class CNN(nnx.Module):
    """Has names whose alphabetical order is not that of the calls."""

    def __init__(self, rngs):
        conv = lambda *features, **kwargs: nnx.Conv(*features, rngs=rngs, **kwargs)
        self.stem = conv(3, 4, kernel_size=(3, 3))
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.left = conv(4, 4, kernel_size=(3, 3), feature_group_count=2)
        self.exit = conv(4, 8, kernel_size=(3, 3), strides=2)
        self.down = conv(4, 8, kernel_size=(1, 1), strides=2)
        self.classes = nnx.Linear(8, 10, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        x = self.norm(nnx.relu(self.stem(x)))
        x = nnx.max_pool(x, (2, 2), strides=(2, 2))
        y = self.exit(nnx.relu(self.left(x)))
        x = nnx.relu(self.down(x) + y)
        return self.classes(self.dropout(x.mean(axis=(1, 2))))


def test_a_convolutional_network_with_a_residual_block():
    assert depths_of_nnx(CNN, IMAGES) == {
        "classes/kernel": 4,
        "down/kernel": 3,
        "exit/kernel": 2,
        "left/kernel": 1,
        "stem/kernel": 0,
    }


class Block(nnx.Module):
    def __init__(self, rngs):
        self.second = nnx.Linear(4, 4, rngs=rngs)
        self.first = nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, x):
        return x + self.second(nnx.gelu(self.first(x)))


class ScannedNNX(nnx.Module):
    def __init__(self, rngs):
        self.head = nnx.Linear(4, 4, rngs=rngs)
        self.blocks = nnx.vmap(Block)(rngs.split(3))

    def __call__(self, x):
        run = nnx.scan(lambda x, block: block(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        return self.head(run(x, self.blocks))


def stack_rule(path, leaf):
    """Is the rule that the documentation gives for trees with stacks and single layers."""
    if path.startswith("blocks/"):
        return (0,) if leaf.ndim >= 3 else None
    return () if leaf.ndim >= 2 else None


def test_nnx_scan_goes_block_by_block():
    assert depths_of_nnx(ScannedNNX, X, rotate=stack_rule) == {
        "blocks/first/kernel": [0, 2, 4],
        "blocks/second/kernel": [1, 3, 5],
        "head/kernel": 6,
    }


class EnsembleNNX(nnx.Module):
    def __init__(self, rngs):
        self.blocks = nnx.vmap(Block)(rngs.split(3))

    def __call__(self, x):
        return nnx.vmap(lambda block, x: block(x), in_axes=(0, None))(self.blocks, x)


def test_nnx_vmap_is_one_depth_for_all_members():
    assert depths_of_nnx(EnsembleNNX, X, rotate=stack_rule) == {
        "blocks/first/kernel": [0, 0, 0],
        "blocks/second/kernel": [1, 1, 1],
    }


class Attention(nnx.Module):
    """Has a tied embedding, attention and a recurrent layer."""

    def __init__(self, rngs):
        self.embed = nnx.Embed(7, 4, rngs=rngs)
        self.attend = nnx.MultiHeadAttention(2, in_features=4, use_bias=False, decode=False, rngs=rngs)
        self.after = nnx.RNN(nnx.SimpleCell(4, 4, rngs=rngs))

    def __call__(self, tokens):
        return self.embed.attend(self.after(self.attend(self.embed(tokens))))


def test_a_tied_embedding_attention_and_recurrence():
    depths = depths_of_nnx(Attention, jnp.zeros((2, 5), int))
    order = ["embed/embedding", "attend/query/kernel", "attend/key/kernel", "attend/value/kernel"]
    assert [depths[name] for name in order] == [0, 1, 2, 3]
    assert depths["attend/out/kernel"] == 4
    assert sorted(depths.values()) == list(range(7))


def test_linen_scan_between_other_layers_in_bfloat16():
    class Inner(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.Dense(4, name="b", dtype=jnp.bfloat16)(
                nn.Dense(4, name="c", dtype=jnp.bfloat16)(x)
            ), None

    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(4, name="z")(x)
            stack = nn.scan(
                nn.remat(Inner), variable_axes={"params": 0}, split_rngs={"params": True}, length=2
            )
            x, _ = stack(name="blocks")(x.astype(jnp.bfloat16), None)
            return nn.Dense(4, name="a")(x)

    model = Outer()
    params = jax.eval_shape(model.init, jax.random.key(0), X)["params"]
    depths = layer_depths(lambda p, x: model.apply({"params": p}, x), params, X, rotate=stack_rule)
    assert rotating(depths) == {
        "a/kernel": 5,
        "blocks/b/kernel": [2, 4],
        "blocks/c/kernel": [1, 3],
        "z/kernel": 0,
    }


class EquinoxNet(eqx.Module):
    head: eqx.nn.Linear
    blocks: eqx.nn.Linear
    stem: eqx.nn.Conv1d
    scale: float

    def __init__(self, key):
        keys = jax.random.split(key, 3)
        self.head = eqx.nn.Linear(4, 2, key=keys[0])
        self.blocks = eqx.filter_vmap(lambda key: eqx.nn.Linear(4, 4, key=key))(jax.random.split(keys[1], 3))
        self.stem = eqx.nn.Conv1d(1, 1, 3, padding=1, use_bias=False, key=keys[2])
        self.scale = 0.5

    def __call__(self, x):
        x = self.stem(x[None])[0]
        arrays, static = eqx.partition(self.blocks, eqx.is_array)
        step = lambda x, block: (jnp.tanh(eqx.combine(block, static)(x)), None)
        return self.head(self.scale * jax.lax.scan(step, x, arrays)[0])


def test_equinox_with_a_scanned_stack():
    model = eqx.filter_eval_shape(EquinoxNet, jax.random.key(0))
    shapes, static = eqx.partition(model, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    apply = lambda params, x: jax.vmap(eqx.combine(params, static))(x)
    depths = layer_depths(eqx.filter_checkpoint(apply), shapes, X, rotate=stack_rule)
    assert isinstance(depths, EquinoxNet)
    assert rotating(depths) == {"blocks/weight": [1, 2, 3], "head/weight": 4, "stem/weight": 0}


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Model:
    last: jax.Array
    first: jax.Array
    bias: jax.Array | None = None
    width: int = dataclasses.field(default=4, metadata={"static": True})

    def __call__(self, x):
        return jax.nn.relu(x @ self.first) @ self.last


def test_a_dataclass_with_a_none_and_a_static_field():
    depths = layer_depths(Model.__call__, Model(jnp.ones((4, 3)), jnp.ones((4, 4))), X)
    assert depths == Model(last=1, first=0)
