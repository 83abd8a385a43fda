"""Tests leaves that are not small on a single CPU device, where one reduction makes several sums."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from steps import one_step, random_pair

from layca_optax import layca, rotation_report, track_rotation

# The first two are cut into blocks of rows. In the others, the first, a middle or the last axis can be cut,
# or none.
SHAPES = [(512, 150), (3, 3, 32, 256), (528, 131), (3, 3, 48, 131), (67, 1008), (67, 1009)]


def reductions(optimizer, w, platform="cpu"):
    """Returns the numbers of results that the reductions of an update have."""
    trace = jax.jit(optimizer.update).trace(w, jax.eval_shape(optimizer.init, w), w)
    text = trace.lower(lowering_platforms=(platform,)).as_text()
    return {line.count("init:") for line in re.findall(r"stablehlo\.reduce\((.*)", text)}


def test_only_a_single_cpu_device_sums_rows_in_one_pass(request):
    w, _ = random_pair(SHAPES[0])
    optimizer = optax.chain(layca(), track_rotation())
    assert reductions(optimizer, w) == {1}
    request.getfixturevalue("one_device")
    assert reductions(optimizer, w) == {1, 3, 5}
    assert reductions(optimizer, w[:50]) == {1}


@pytest.mark.usefixtures("one_device")
@pytest.mark.parametrize(
    "scale", [1.0, *(pytest.param(scale, marks=pytest.mark.slow) for scale in (1e-30, 1e30))]
)
@pytest.mark.parametrize("shape", SHAPES)
def test_steps_are_those_of_the_formula_at_every_scale(shape, scale):
    w, g = random_pair(shape)
    expected = oracle.layca_step(w, -g, w, 0.1) - np.asarray(w, np.float64)
    np.testing.assert_allclose(one_step(w, g * scale), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("one_device")
@pytest.mark.parametrize("rotate", ["layer", pytest.param("neuron", marks=pytest.mark.slow)])
@pytest.mark.parametrize("shape", SHAPES)
def test_rotation_is_measured_for_layers_and_neurons(shape, rotate):
    w, u = random_pair(shape)
    u = 0.01 * u
    tracker = track_rotation(rotate=rotate)
    state = tracker.init(w)
    weights = [w]
    for _ in range(2):
        out, state = jax.jit(tracker.update)(u, state, w)
        np.testing.assert_array_equal(out, u)
        w = optax.apply_updates(w, out)
        weights.append(w)
    first, before, now = ([x] if rotate == "layer" else np.moveaxis(x, -1, 0) for x in np.asarray(weights))
    report = rotation_report(state)["."]
    expected = [oracle.cosine_distance(a, b) for a, b in zip(first, now, strict=True)]
    np.testing.assert_allclose(np.atleast_1d(report["from_init"]), expected, 1e-4)
    expected = [oracle.angle(a, b) for a, b in zip(before, now, strict=True)]
    np.testing.assert_allclose(np.atleast_1d(report["last_step"]), expected, 1e-4)


@pytest.mark.usefixtures("one_device")
def test_a_zero_update_is_measured_as_exactly_no_rotation():
    w, _ = random_pair(SHAPES[0])
    tracker = track_rotation()
    _, state = jax.jit(tracker.update)(jnp.zeros_like(w), tracker.init(w), w)
    assert rotation_report(state)["."] == {"from_init": 0, "last_step": 0, "norm": 1}


@pytest.mark.usefixtures("one_device")
@pytest.mark.parametrize(
    ("dtype", "stages", "share"),
    [
        (jnp.bfloat16, [layca()], 1 / 2),
        (jnp.float32, [layca()], 1 / 2),
        # Five sums per eight entries are 5/8 as many numbers.
        (jnp.float32, [layca(), track_rotation()], 0.65),
    ],
)
def test_a_step_stores_no_second_copy_of_the_weights(dtype, stages, share):
    optimizer = optax.chain(*stages)
    w, _ = random_pair((512, 512), dtype=dtype)

    def step(w, state, gradient):
        updates, state = optimizer.update(gradient, state, w)
        return optax.apply_updates(w, updates), state

    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(w, optimizer.init(w), w).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < share * w.nbytes


@pytest.mark.usefixtures("one_device")
def test_the_direction_of_a_step_can_be_differentiated():
    w, g = random_pair(SHAPES[0])
    change, weight = random_pair(SHAPES[0], seed=1)
    loss = lambda g: jnp.sum(weight * one_step(w, g))
    exact = lambda g: np.sum(np.asarray(weight, np.float64) * (oracle.layca_step(w, -g, w, 0.1)))
    g64, change64 = np.asarray(g, np.float64), np.asarray(change, np.float64)
    slope = (exact(g64 + 1e-4 * change64) - exact(g64 - 1e-4 * change64)) / 2e-4
    assert float(jnp.sum(jax.grad(loss)(g) * change)) == pytest.approx(slope, rel=1e-3)


@pytest.mark.usefixtures("one_device")
@pytest.mark.parametrize("axis_type", [AxisType.Explicit, AxisType.Auto])
@pytest.mark.parametrize(
    "spec", [P("x"), *(pytest.param(s, marks=pytest.mark.slow) for s in (P(), P(None, "x")))]
)
def test_meshes_of_one_device(axis_type, spec):
    w, g = random_pair(SHAPES[0])
    alone = one_step(w, g)
    mesh = jax.make_mesh((1,), ("x",), axis_types=(axis_type,), devices=jax.devices()[:1])
    with jax.set_mesh(mesh):
        w, g = (jax.device_put(x, NamedSharding(mesh, spec)) for x in (w, g))
        np.testing.assert_allclose(one_step(w, g), alone, rtol=1e-5, atol=3e-7)
        mapped = jax.shard_map(one_step, in_specs=(spec, spec), out_specs=spec)(w, g)
        np.testing.assert_allclose(mapped, alone, rtol=1e-5, atol=3e-7)  # sums in another order


@pytest.mark.usefixtures("one_device")
@pytest.mark.parametrize("transform", [jax.vmap, jax.pmap])
def test_mapped_over_networks(transform):
    w, g = random_pair((1, *SHAPES[0]))
    np.testing.assert_allclose(transform(one_step)(w, g)[0], one_step(w[0], g[0]), rtol=1e-5, atol=3e-7)
