"""Tests small leaves on a single CPU device, where many are turned and measured at once."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from steps import one_step, random_pair

from layca_optax import layca, rotation_report, track_rotation
from layca_optax._small_leaves import LARGE

pytestmark = pytest.mark.usefixtures("one_device")

# From the last component of a path to the axes that enumerate vectors.
RULE = {"layer": (), "rows": (0,), "columns": (-1,), "both": (0, 2), "thirds": ((1, 3),)}
rule = lambda path, leaf: RULE[path.split("/")[-1]]


def vectors(array, kind):
    """Returns the vectors of an array as the rows of another, in float64."""
    x = np.asarray(array, np.float64)
    if kind == "layer":
        return x.reshape(1, -1)
    if kind == "thirds":
        return np.moveaxis(x.reshape(x.shape[0], 3, -1), 1, 0).reshape(3, -1)
    axes = RULE[kind]
    return np.moveaxis(x, axes, range(len(axes))).reshape(np.prod([x.shape[a] for a in axes]), -1)


def expected(w, g, kind, rate, **variant):
    pairs = zip(vectors(w, kind), vectors(-g, kind), strict=True)
    return np.stack([oracle.turned(a, s, oracle.norm(a), rate, **variant) for a, s in pairs])


def tree(kinds, dtype=jnp.float32):
    """Returns weights and gradients of several leaves per kind; one has a size of its own."""
    shapes = [(4, 5, 6), (4, 9, 3), (7, 3, 12), (2, 3, 2), (4, 5, 6), (9, 30, 30)]
    pairs = {
        f"{i}/{kind}": random_pair(shape, seed=i, dtype=dtype)
        for i, shape in enumerate(shapes)
        for kind in kinds
        if kind != "thirds" or shape[1] % 3 == 0
    }
    return {name: w for name, (w, _) in pairs.items()}, {name: g for name, (_, g) in pairs.items()}


@pytest.mark.parametrize(
    "variant",
    [
        {},
        pytest.param({"retraction": "geodesic"}, marks=pytest.mark.slow),
        pytest.param({"tangent": False}, marks=pytest.mark.slow),
    ],
)
def test_steps_of_all_kinds_of_vectors_are_those_of_the_formula(variant):
    w, g = tree(RULE)
    rates = {name: 0.02 * (1 + i) for i, name in enumerate(w)}
    updates = one_step(w, g, rates, rotate=rule, **variant)
    for name in w:
        kind = name.split("/")[-1]
        new = vectors(w[name], kind) + vectors(updates[name], kind)
        np.testing.assert_allclose(new, expected(w[name], g[name], kind, rates[name], **variant), 1e-5, 2e-6)


@pytest.mark.slow
@settings(deadline=None, max_examples=15)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 40), st.integers(2, 40)), min_size=2, max_size=8),
    scale=st.sampled_from([1e-30, 1.0, 1e30]),
    rotate=st.sampled_from(["layer", "neuron"]),
)
def test_any_shapes_together(shapes, scale, rotate):
    pairs = [random_pair((rows + 1, columns), seed=i) for i, (rows, columns) in enumerate(shapes)]
    w, g = [w for w, _ in pairs], [g * scale for _, g in pairs]
    updates = one_step(w, g, 0.1, rotate=rotate)
    kind = "layer" if rotate == "layer" else "columns"
    for a, s, u in zip(w, g, updates, strict=True):
        new = vectors(a, kind) + vectors(u, kind)
        np.testing.assert_allclose(new, expected(a, s / scale, kind, 0.1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, pytest.param(jnp.float16, marks=pytest.mark.slow)])
def test_narrow_leaves_beside_wide_ones(dtype):
    (w, g), (narrow_w, narrow_g) = tree(["layer"]), tree(["layer"], dtype)
    mixed = lambda wide, narrow: {"wide": wide, "narrow": narrow}
    updates = one_step(mixed(w, narrow_w), mixed(g, narrow_g), 0.1)
    for name in w:
        assert updates["wide"][name].dtype == jnp.float32
        assert updates["narrow"][name].dtype == dtype
        exact = expected(narrow_w[name], narrow_g[name], "layer", 0.1)
        exact -= vectors(narrow_w[name], "layer")
        # Rounded once, to the dtype of the update.
        close = float(jnp.finfo(dtype).eps) * np.abs(exact) + 1e-5
        assert (np.abs(vectors(updates["narrow"][name], "layer") - exact) <= close).all()


@pytest.mark.parametrize(
    "bad", [0.0, *(pytest.param(bad, marks=pytest.mark.slow) for bad in (np.nan, np.inf))]
)
def test_a_vector_without_a_direction_stands_still_alone(bad):
    w, g = tree(["columns"])
    spoilt = g | {"0/columns": g["0/columns"].at[..., 2].set(bad)}
    updates = one_step(w, spoilt, 0.1, rotate=rule)
    assert (np.asarray(updates["0/columns"])[..., 2] == 0).all()
    for name in w:
        new = vectors(w[name], "columns") + vectors(updates[name], "columns")
        turns = np.arange(len(new)) != (2 if name == "0/columns" else -1)
        right = expected(w[name], g[name], "columns", 0.1)
        np.testing.assert_allclose(new[turns], right[turns], 1e-5, 2e-6)


@pytest.mark.slow
def test_rotation_is_measured_together():
    w, u = tree(RULE)
    u = jax.tree.map(lambda x: 0.01 * x, u)
    tracker = track_rotation(rotate=rule)
    first, state = w, tracker.init(w)
    for _ in range(2):
        before = w
        out, state = jax.jit(tracker.update)(u, state, w)
        jax.tree.map(np.testing.assert_array_equal, out, u)
        w = optax.apply_updates(w, out)
    report = rotation_report(state)
    for name in w:
        kind = name.split("/")[-1]
        measured = {key: np.ravel(value) for key, value in report[name].items()}
        now, then = vectors(w[name], kind), vectors(first[name], kind)
        distances = list(map(oracle.cosine_distance, then, now))
        np.testing.assert_allclose(measured["from_init"], distances, 1e-4)
        angles = list(map(oracle.angle, vectors(before[name], kind), now))
        np.testing.assert_allclose(measured["last_step"], angles, 1e-4)
        norms = np.linalg.norm(now, axis=1) / np.linalg.norm(then, axis=1)
        np.testing.assert_allclose(measured["norm"], norms, 1e-6)


def compiled_step(optimizer, shapes):
    w = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    state = jax.eval_shape(optimizer.init, w)
    return jax.jit(optimizer.update).lower(w, state, w).compile().as_text()


@pytest.mark.parametrize("optimizer", [layca(), track_rotation()])
def test_more_small_leaves_need_no_more_sums(optimizer):
    sums = lambda count: len(re.findall(r" reduce\(", compiled_step(optimizer, [(12, 20)] * count)))
    assert sums(3) == sums(30) > 0
    large = [(LARGE // 64, 64)]
    assert len(re.findall(r" reduce\(", compiled_step(optimizer, large * 4))) > sums(30)


def test_small_leaves_of_a_shape_are_cut_out_by_one_kernel():
    def kernels(count):
        # XLA:CPU compiles fusions once if they differ in names only.
        text = compiled_step(layca(), [(12, 20)] * count)
        bodies = re.findall(r"^%\S* \(.*?^\}", text, re.MULTILINE | re.DOTALL)
        bodies = [re.sub(r"%?\b[a-z]\w*\.\d+|%[\w.]+|, metadata=.*", "", body) for body in bodies]
        return {body for body in bodies if "dynamic-slice" in body}

    assert len(kernels(3)) == len(kernels(30)) > 0


@pytest.mark.slow
def test_the_direction_of_a_step_can_be_differentiated():
    w, g = tree(["layer"])
    weight, change = (jax.tree.map(jnp.flip, x) for x in (g, w))
    loss = lambda g: sum(jnp.sum(weight[name] * u) for name, u in one_step(w, g).items())
    slopes = jax.grad(loss)(g)

    def exact(name, by):
        s = np.asarray(g[name], np.float64) + by * np.asarray(change[name], np.float64)
        return np.sum(np.asarray(weight[name], np.float64).ravel() * expected(w[name], s, "layer", 0.1))

    for name in w:
        right = (exact(name, 1e-4) - exact(name, -1e-4)) / 2e-4
        assert float(jnp.sum(slopes[name] * change[name])) == pytest.approx(right, rel=1e-3)


@pytest.mark.slow
def test_mapped_over_networks():
    w, g = tree(["layer", "columns"])
    stacked = lambda tree: jax.tree.map(lambda x: jnp.stack([x, 2 * x]), tree)
    step = lambda w, g: one_step(w, g, rotate=rule)
    mapped = jax.jit(jax.vmap(step))(stacked(w), stacked(g))
    alone = jax.jit(step)(w, g)
    for name in w:
        np.testing.assert_allclose(mapped[name], np.stack([alone[name], 2 * alone[name]]), 1e-5, 3e-7)


@pytest.mark.slow
@pytest.mark.parametrize("axis_type", [AxisType.Explicit, AxisType.Auto])
def test_meshes_of_one_device(axis_type):
    w, g = tree(["layer", "rows"])
    step = lambda w, g: one_step(w, g, rotate=rule)
    alone = step(w, g)
    mesh = jax.make_mesh((1,), ("x",), axis_types=(axis_type,), devices=jax.devices()[:1])
    with jax.set_mesh(mesh):
        for spec in (P(), P("x")):
            sharded = [jax.device_put(tree, NamedSharding(mesh, spec)) for tree in (w, g)]
            mapped = jax.shard_map(step, in_specs=(spec, spec), out_specs=spec)
            for updates in (step(*sharded), mapped(*sharded)):
                for name in w:
                    np.testing.assert_allclose(updates[name], alone[name], rtol=1e-5, atol=3e-7)
