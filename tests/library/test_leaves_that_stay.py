"""Tests leaves that no named rule rotates, whatever axes they have, and leaves that are refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from steps import one_step

from layca_optax import describe, layca, layer_depths, layer_rotation, rotation_report, track_rotation

NAMED_RULES = ("layer", "stacked_layer", "neuron")


def rows(params, **kwargs):
    """Returns the rule that `describe` shows for each path."""
    lines = describe(params, **kwargs).splitlines()
    start = lines[0].index("rule")
    return {line.split()[0]: line[start:] for line in lines[1 : 1 + len(jax.tree.leaves(params))]}


@pytest.mark.parametrize("rotate", NAMED_RULES)
@pytest.mark.parametrize("name", ["bias", "scale", pytest.param("offset", marks=pytest.mark.slow)])
def test_biases_and_scales_take_the_plain_step_however_many_axes_they_have(rotate, name):
    leaf = jnp.arange(1.0, 25.0).reshape(2, 3, 4)
    params = {"deep": {name: leaf, "kernel": leaf}, name: leaf, f"{name}_map": leaf, "my_bias": leaf}
    g = jax.tree.map(lambda w: jnp.flip(w) + 1, params)
    updates = one_step(params, g, 0.1, rotate=rotate)
    for bare, gradient in ((updates["deep"][name], g["deep"][name]), (updates[name], g[name])):
        np.testing.assert_allclose(bare, -0.1 * gradient, rtol=1e-6)
    norms = layca(rotate=rotate).init(params).initial_norm
    assert norms.keys() == {"deep/kernel", f"{name}_map", "my_bias"}
    assert track_rotation(rotate=rotate).init(params).initial.keys() == norms.keys()
    assert layer_rotation(params, params, rotate=rotate).keys() == norms.keys()
    depths = layer_depths(
        lambda p, x: sum(w.sum() * x for w in jax.tree.leaves(p)), params, 1.0, rotate=rotate
    )
    assert np.all(np.asarray(depths["deep"][name]) == -1)
    assert np.min(depths["deep"]["kernel"]) >= 0
    said = rows(params, rotate=rotate)
    assert said[f"deep/{name}"] == said[name] == f"plain step (named {name})"
    assert said["deep/kernel"] == said["my_bias"] == "rotates"


def test_flat_dictionaries_have_the_same_last_components():
    params = {"layers/0/bias": jnp.ones((2, 3)), "layers/0/kernel": jnp.ones((2, 3))}
    assert layca().init(params).initial_norm.keys() == {"layers/0/kernel"}


def test_biases_with_padded_axes_in_equinox_and_with_heads_in_flax():
    conv = eqx.filter(eqx.nn.Conv2d(3, 8, 3, key=jax.random.key(0)), eqx.is_array)
    assert conv.bias.shape == (8, 1, 1)
    assert layca().init(conv).initial_norm.keys() == {"weight"}
    attention = nnx.MultiHeadAttention(2, 8, decode=False, rngs=nnx.Rngs(0))
    params = nnx.state(attention, nnx.Param)
    assert params["query"]["bias"].shape == (2, 4)
    kernels = {f"{part}/kernel" for part in ("query", "key", "value", "out")}
    assert layca().init(params).initial_norm.keys() == kernels
    stack = jax.tree.map(lambda w: jnp.stack([w, w]), params)
    assert layca(rotate="stacked_layer").init(stack).initial_norm.keys() == kernels


@pytest.mark.parametrize(
    ("rotate", "shape", "stays"),
    [
        ("layer", (1, 1), True),
        ("layer", (1, 2), False),
        ("stacked_layer", (3, 1, 1), True),
        ("stacked_layer", (1, 1, 2), False),
        ("neuron", (1, 5), True),
        ("neuron", (1, 1, 5), True),
        ("neuron", (2, 5), False),
    ],
)
def test_vectors_of_one_entry_take_the_plain_step(rotate, shape, stays):
    params = {"kernel": jnp.ones(shape), "other": jnp.ones((2, 3, 4))}
    norms = layca(rotate=rotate).init(params).initial_norm
    assert ("kernel" not in norms) == stays
    assert rows(params, rotate=rotate)["kernel"] == (
        "plain step (one entry per vector)" if stays else "rotates"
    )
    if stays:
        update = one_step(params, jax.tree.map(lambda w: 3 * w, params), 0.1, rotate=rotate)["kernel"]
        np.testing.assert_allclose(update, np.full(shape, -0.3), rtol=1e-6)


def test_a_layer_with_one_input_and_one_output_trains():
    params = nnx.state(nnx.Linear(1, 1, rngs=nnx.Rngs(0)), nnx.Param)
    assert layca().init(params).initial_norm == {}


@pytest.mark.parametrize("transform", [layca, track_rotation])
@pytest.mark.parametrize(
    ("axes", "shape"), [((), ()), ((), (1, 1)), ((0,), (5,)), ((0, 1), (2, 3)), (((0, 4),), (4, 1))]
)
def test_functions_that_ask_for_vectors_of_one_entry_are_refused_by_path(transform, axes, shape):
    params = {"a": [jnp.ones(shape)]}
    with pytest.raises(ValueError, match="vectors of one entry of 'a/0'"):
        transform(rotate=lambda path, leaf: axes).init(params)


@pytest.mark.parametrize("rotate", [*NAMED_RULES, lambda path, leaf: (), lambda path, leaf: (0,)])
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), pytest.param((0, 3, 3), marks=pytest.mark.slow)])
def test_a_leaf_without_entries_is_not_taken_for_a_zero_vector(rotate, shape):
    params = {"none": jnp.ones(shape), "some": jnp.ones((2, 3, 4))}
    for transform in (layca(rotate=rotate), track_rotation(rotate=rotate)):
        state = transform.init(params)
        updates, _ = jax.jit(transform.update)(params, state, params)
        assert updates["none"].shape == shape
    assert rotation_report(state).keys() == {"some"}
    if rotate == "layer":
        assert rows(params)["none"] == "plain step (no entries)"


def test_8_bit_leaves_take_the_plain_step_and_are_refused_by_path_where_they_would_rotate():
    dtype = jnp.float8_e4m3fn
    params = {"bias": jnp.ones(4, dtype), "kernel": jnp.eye(2)}
    update = one_step(params, {"bias": jnp.ones(4, dtype), "kernel": jnp.ones((2, 2))}, 0.5)["bias"]
    assert update.dtype == dtype
    np.testing.assert_array_equal(update.astype(jnp.float32), -0.5 * np.ones(4))
    with pytest.raises(ValueError, match="'a/b' would rotate, but its dtype float8_e4m3fn"):
        layca().init({"a": {"b": jnp.ones((2, 2), dtype)}})


@pytest.mark.parametrize("transform", [layca, track_rotation])
def test_shapes_without_values_are_refused_by_path(transform):
    shapes = jax.eval_shape(lambda: {"a": {"b": jnp.ones((2, 2))}})
    with pytest.raises(ValueError, match=r"'a/b' is a ShapeDtypeStruct.*jax\.eval_shape"):
        transform().init(shapes)
    jax.eval_shape(transform().init, shapes)


def test_the_error_names_the_zero_rows_of_a_table_and_what_helps():
    table = jnp.ones((10, 4)).at[jnp.array([0, 7])].set(0)
    message = (
        r"2 of the 10 vectors of 'embedding' \(those at 0, 7\)\..* mask .* or rotate the leaf as one vector"
    )
    with pytest.raises(ValueError, match=message):
        layca(rotate=lambda path, leaf: (0,)).init({"embedding": table})
    blocks = jnp.zeros((2, 3, 4)).at[0].set(1)
    with pytest.raises(ValueError, match=r"those at \(1, 0\), \(1, 1\), \(1, 2\)\)"):
        layca(rotate=lambda path, leaf: (0, 1)).init({"blocks": blocks})
    with pytest.raises(ValueError, match=r"those at 0, 1, 2, 3, 4, …\)"):
        layca(rotate="neuron").init({"kernel": jnp.zeros((3, 6))})
