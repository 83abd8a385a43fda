"""What clients in Equinox, Haiku, Flax NNX and haliax do with parameters: it works, or an error says how."""

import re
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from layca_optax import (
    alpha_learning_rates,
    check_descent,
    describe,
    layca,
    layer_depths,
    rotation_report,
    skip_nonfinite,
    track_rotation,
)

X = jnp.ones((3, 4))


@pytest.mark.parametrize("optimizer", [layca(), track_rotation()])
def test_a_whole_equinox_model_as_params_is_an_error_that_says_what_to_pass(optimizer):
    model = eqx.nn.MLP(4, 2, width_size=8, depth=1, key=jax.random.key(0))
    params = gradients = eqx.filter(model, eqx.is_inexact_array)
    state = optimizer.init(params)
    for call in (optimizer.update, lambda *_: check_descent(optimizer, model, gradients)):
        with pytest.raises(ValueError, match=r"'activation'.*; pass .* eqx\.filter\(model, eqx\.is_inexact_"):
            call(gradients, state, model)


def test_skip_nonfinite_keeps_moments_whether_or_not_an_equinox_model_is_filtered():
    model = eqx.nn.MLP(4, 2, width_size=8, depth=0, key=jax.random.key(0))
    params = eqx.filter(model, eqx.is_inexact_array)
    gradients = jax.tree.map(lambda w: jnp.full_like(w, jnp.nan), params)
    optimizer = skip_nonfinite(optax.trace(0.9))
    for given in (params, model):
        _, state = optimizer.update(gradients, optimizer.init(params), given)
        np.testing.assert_array_equal(state.inner_state.trace.layers[0].weight, np.zeros((2, 4)))


def test_leaves_that_differ_for_another_reason_get_no_such_advice():
    params = {"a": jnp.eye(2), "b": jnp.eye(2)}
    with pytest.raises(ValueError, match=r"they differ in 'b'$"):
        layca().update({"a": params["a"]}, layca().init(params), params)


def test_describe_lists_the_functions_of_an_equinox_model_as_untouched():
    model = eqx.nn.MLP(4, 2, width_size=8, depth=1, key=jax.random.key(0))
    table = describe(model, learning_rate=0.1, optimizer=layca(0.1))
    assert re.search(r"^activation +- +- +untouched +-$", table, re.MULTILINE)
    assert table.splitlines()[-1] == "58 parameters, 48 of them rotate in 2 vectors"


def test_describe_and_rotation_report_have_one_order():
    params = {f"layer{i}": jnp.eye(2) for i in range(11)}
    paths = [row.split()[0] for row in describe(params).splitlines()[1:-1]]
    assert paths == list(rotation_report(track_rotation().init(params))) == [f"layer{i}" for i in range(11)]


@jax.tree_util.register_pytree_node_class
@dataclass
class NamedArray:
    """An array whose axes have names, by which it is sharded, as haliax registers it."""

    array: jax.Array
    axes: tuple[str, ...]

    def tree_flatten(self):
        return (self.array,), self.axes

    @classmethod
    def tree_unflatten(cls, axes, children):
        return cls(*children, axes)


def test_copies_of_track_rotation_keep_the_names_of_axes():
    params = {
        "linear": {"weight": NamedArray(jnp.eye(4), ("in", "out")), "bias": NamedArray(jnp.ones(4), ("out",))}
    }
    optimizer = track_rotation()
    state = optimizer.init(params)
    _, state = jax.jit(optimizer.update)(jax.tree.map(jnp.ones_like, params), state, params)
    (copied,) = state.initial.values()
    assert isinstance(copied, NamedArray)
    assert copied.axes == ("in", "out")
    assert rotation_report(state)["linear/weight/0"]["last_step"] > 0


class Network(nnx.Module):
    def __init__(self, rngs):
        self.last = nnx.Linear(8, 2, rngs=rngs)
        self.first = nnx.Linear(4, 8, rngs=rngs)
        self.norm, self.dropout = nnx.BatchNorm(8, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.last(self.dropout(nnx.relu(self.norm(self.first(x)))))


@pytest.mark.slow
def test_rates_by_depth_of_an_nnx_model_with_batch_norm_and_dropout():
    model = Network(nnx.Rngs(0))
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    depths = layer_depths(lambda params, x: nnx.merge(graphdef, params, rest, copy=True)(x), params, X)
    rates = alpha_learning_rates(0.1, 0.5, depths)
    optimizer = nnx.Optimizer(model, optax.chain(layca(rates), track_rotation()), wrt=nnx.Param)
    optimizer.update(model, nnx.grad(lambda model: jnp.sum(model(X) ** 2))(model))
    report = rotation_report(optimizer.opt_state)
    # Equation (1) for two layers: the first one's rate is multiplied by (1 - 0.5)^5.
    angles = [report[f"{name}/kernel"]["last_step"] for name in ("first", "last")]
    np.testing.assert_allclose(angles, np.arctan([0.1 / 32, 0.1]), rtol=1e-4)


def test_a_rate_covers_haikus_modules_by_the_components_of_their_names():
    params = {
        "transformer/h0_attn/key": {"w": jnp.eye(2)},
        "transformer/h0_mlp": {"w": jnp.eye(2)},
        "transformers": {"w": jnp.eye(2)},
    }
    rates = {"transformer": {"h0_attn": 0.1, "h0_mlp": {"w": 0.2}}, "transformers": 0.3}
    optimizer = optax.chain(layca(rates), track_rotation())
    ones = jax.tree.map(jnp.ones_like, params)
    _, state = optimizer.update(ones, optimizer.init(params), params)
    angles = [turned["last_step"] for turned in rotation_report(state).values()]
    np.testing.assert_allclose(angles, np.arctan([0.1, 0.2, 0.3]), rtol=1e-4)
    with pytest.raises(ValueError, match="two rates at 'transformer/h0_mlp'"):
        layca({"transformer": {"h0_mlp": 0.1}, "transformer/h0_mlp": 0.1, "transformers": 0.1}).init(params)


@pytest.mark.parametrize("rotate", ["layer", "stacked_layer", "neuron"])
def test_the_hint_for_vectors_that_start_at_zero_works_when_pasted(rotate):
    params = {"a": {"w": jnp.ones((2, 2, 2))}, "b": {"bias": jnp.ones((2, 1, 2))}}
    params["head"] = params["lora_b"] = {"w": jnp.zeros((2, 2, 2))}
    with pytest.raises(ValueError, match=r"'head/w'.*, .*'lora_b/w'") as caught:
        layca(rotate=rotate).init(params)
    (hint,) = re.findall(r"rotate=lambda .* else None", str(caught.value))
    pasted = eval(f"layca({hint})")
    state = pasted.init(params)
    assert state.initial_norm.keys() == {"a/w"}
    assert state.initial_norm["a/w"].shape == layca(rotate=rotate).init(params["a"]).initial_norm["w"].shape
