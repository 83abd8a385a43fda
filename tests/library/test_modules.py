"""Tests that a network trains alike in every kind of module and in a dictionary of arrays."""

import dataclasses
import functools
from typing import Any, NamedTuple

import equinox as eqx
import flax
import flax.training.train_state
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from jax.sharding import AxisType, PartitionSpec
from optimizers import assert_close, schedule

from layca_optax import layca, layer_rotation

RNG = np.random.default_rng(0)
X, Y = (jnp.asarray(RNG.normal(size=shape), jnp.float32) for shape in ((5, 4), (5, 2)))
ARRAYS = {
    name: jnp.asarray(RNG.normal(size=shape), jnp.float32)
    for name, shape in [("k1", (4, 8)), ("b1", (8,)), ("k2", (8, 2)), ("b2", (2,))]
}
STEPS = 3


def make_optimizer():
    return optax.chain(optax.scale_by_adam(), layca(schedule, others=optax.scale_by_learning_rate(0.05)))


def squared_error(model):
    return jnp.mean((model(X) - Y) ** 2)


def network(arrays):
    k1, b1, k2, b2 = (arrays[name] for name in ("k1", "b1", "k2", "b2"))
    return lambda x: jax.nn.relu(x @ k1 + b1[None]) @ k2 + b2[None]


@functools.cache
def trained():
    """Returns the arrays after all steps."""
    arrays, optimizer = ARRAYS, make_optimizer()
    state = optimizer.init(arrays)
    for _ in range(STEPS):
        gradient = jax.grad(lambda a: squared_error(network(a)))(arrays)
        updates, state = optimizer.update(gradient, state, arrays)
        arrays = optax.apply_updates(arrays, updates)
    return arrays


class Point(NamedTuple):
    kernel: Any
    bias: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Dense:
    kernel: Any
    bias: Any
    name: str = dataclasses.field(default="dense", metadata={"static": True})


@flax.struct.dataclass
class FlaxDense:
    kernel: Any
    bias: Any


TREES = {
    "nested dictionaries": lambda k1, b1, k2, b2: {"a": {"w": k1, "b": b1}, "b": {"c": {"w": k2, "b": b2}}},
    "tuples": lambda k1, b1, k2, b2: ((k1, b1), (k2, b2)),
    "lists with None": lambda k1, b1, k2, b2: [k1, None, [b1, k2], [None], b2],
    "named tuples": lambda k1, b1, k2, b2: (Point(k1, b1), Point(kernel=k2, bias=b2)),
    "dataclasses": lambda k1, b1, k2, b2: {"first": Dense(k1, b1), "second": Dense(k2, b2)},
    "flax dataclasses": lambda k1, b1, k2, b2: [FlaxDense(k1, b1), FlaxDense(k2, b2)],
    "frozen dictionaries": lambda k1, b1, k2, b2: flax.core.freeze({"a": {"w": k1, "b": b1}, "b": [k2, b2]}),
    "boxes of linen": lambda k1, b1, k2, b2: {
        "first": {"kernel": nn.Partitioned(k1, names=(None, "model")), "bias": b1},
        "second": {"kernel": nn.Partitioned(k2, names=("model", None)), "bias": b2},
    },
}


@pytest.mark.parametrize("kind", TREES)
def test_any_tree(kind):
    make = TREES[kind]
    params, optimizer = make(**ARRAYS), make_optimizer()
    # The name of each leaf's array.
    order = jax.tree.leaves(make(*ARRAYS))

    def loss(params):
        return squared_error(network(dict(zip(order, jax.tree.leaves(params), strict=True))))

    state = optimizer.init(params)
    for _ in range(STEPS):
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
    assert_close(params, make(**trained()))
    assert len(layer_rotation(params, make(**ARRAYS))) == 2


class NNX(nnx.Module):
    def __init__(self, annotate):
        # The copy is placed on the mesh, if there is one.
        init = lambda name, axes: annotate(lambda *args: jnp.copy(ARRAYS[name]), axes)
        rngs = nnx.Rngs(0)
        self.first = nnx.Linear(
            4, 8, kernel_init=init("k1", (None, "model")), bias_init=init("b1", ("model",)), rngs=rngs
        )
        self.second = nnx.Linear(
            8, 2, kernel_init=init("k2", (None, None)), bias_init=init("b2", (None,)), rngs=rngs
        )

    def __call__(self, x):
        return self.second(jax.nn.relu(self.first(x)))


def check_nnx(model):
    optimizer = nnx.Optimizer(model, make_optimizer(), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        optimizer.update(model, nnx.grad(squared_error)(model))

    for _ in range(STEPS):
        step(model, optimizer)
    first, second = model.first, model.second
    after = {"k1": first.kernel, "b1": first.bias, "k2": second.kernel, "b2": second.bias}
    assert_close(
        jax.device_get({name: variable[...] for name, variable in after.items()}), jax.device_get(trained())
    )
    return optimizer


def test_nnx_optimizer():
    check_nnx(NNX(annotate=lambda init, axes: init))


@pytest.mark.parametrize(
    "axis_type", [AxisType.Explicit, pytest.param(AxisType.Auto, marks=pytest.mark.slow)]
)
def test_nnx_optimizer_on_an_annotated_module(axis_type):
    with jax.set_mesh(jax.make_mesh((8,), ("model",), axis_types=(axis_type,))):
        model = NNX(annotate=nnx.with_partitioning)
        optimizer = check_nnx(model)
    assert model.first.kernel[...].sharding.spec == PartitionSpec(None, "model")
    assert model.first.bias[...].sharding.spec == PartitionSpec("model")
    # Annotations are for parameters. Norms must not get them.
    specs = nnx.get_partition_spec(nnx.state(optimizer))["opt_state"]
    assert specs[0]["mu"]["first"]["kernel"].get_value() == PartitionSpec(None, "model")
    assert [spec.get_value() for spec in specs[1]["initial_norm"].values()] == [PartitionSpec()] * 2


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2, name="second")(jax.nn.relu(nn.Dense(8, name="first")(x)))


def test_linen_train_state():
    tree = lambda k1, b1, k2, b2: {"first": {"kernel": k1, "bias": b1}, "second": {"kernel": k2, "bias": b2}}
    state = flax.training.train_state.TrainState.create(
        apply_fn=Linen().apply, params=tree(**ARRAYS), tx=make_optimizer()
    )

    @jax.jit
    def step(state):
        loss = lambda params: squared_error(lambda x: state.apply_fn({"params": params}, x))
        return state.apply_gradients(grads=jax.grad(loss)(state.params))

    for _ in range(STEPS):
        state = step(state)
    assert_close(state.params, tree(**trained()))
    assert set(layer_rotation(state.params, tree(**ARRAYS))) == {"first/kernel", "second/kernel"}


def test_equinox():
    model = eqx.nn.MLP(4, 2, width_size=8, depth=1, key=jax.random.key(0))
    where = lambda m: [m.layers[0].weight, m.layers[0].bias, m.layers[1].weight, m.layers[1].bias]
    arrays = lambda a: [a["k1"].T, a["b1"], a["k2"].T, a["b2"]]
    first = model = eqx.tree_at(where, model, arrays(ARRAYS))
    optimizer = make_optimizer()
    state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model, state):
        gradient = eqx.filter_grad(lambda m: squared_error(jax.vmap(m)))(model)
        updates, state = optimizer.update(gradient, state, eqx.filter(model, eqx.is_inexact_array))
        return eqx.apply_updates(model, updates), state

    for _ in range(STEPS):
        model, state = step(model, state)
    assert_close(where(model), arrays(trained()))
    arrays_only = eqx.filter((model, first), eqx.is_inexact_array)
    assert set(layer_rotation(*arrays_only)) == {"layers/0/weight", "layers/1/weight"}
