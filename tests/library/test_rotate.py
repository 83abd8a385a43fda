"""Tests rules and the variants of the step against the oracle."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from steps import one_step, random_pair

from layca_optax import layca, rotation_report, track_rotation


def moved(w, s, rate, **kwargs):
    """Returns the weights after one step in the direction `s`."""
    update = one_step(w, s, rate, flip_sign=False, **kwargs)
    return jax.tree.map(lambda w, u: np.asarray(w, np.float64) + np.asarray(u, np.float64), w, update)


def by_vector(axes, w, s, rate, **kwargs):
    """Returns the weights by the oracle, for a leaf of several vectors with a rate each."""
    w, s = (np.asarray(x, np.float64) for x in (w, s))
    rates = np.broadcast_to(rate, [w.shape[axis] for axis in axes])
    new = np.empty_like(w)
    for where in np.ndindex(rates.shape):
        index = [slice(None)] * w.ndim
        for axis, i in zip(axes, where, strict=True):
            index[axis] = i
        vector = w[tuple(index)]
        new[tuple(index)] = oracle.turned(
            vector, s[tuple(index)], oracle.norm(vector), rates[where], **kwargs
        )
    return new


# What a function may return for a leaf with three axes, and the axes that it means.
AXES = {
    "one": ((), ()),
    "first": ((0,), (0,)),
    "middle": ((1,), (1,)),
    "last": ((-1,), (2,)),
    "two": ((0, 2), (0, 2)),
    "any order": ((-1, 1), (1, 2)),
}


@pytest.mark.parametrize("tangent", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("retraction", ["projection", "geodesic"])
def test_all_variants_for_all_axes_with_a_rate_for_every_vector(tangent, retraction):
    rng = np.random.default_rng(0)
    pairs = {name: random_pair((3, 4, 5), seed) for seed, name in enumerate(AXES)}
    w, s = ({name: pair[i] for name, pair in pairs.items()} for i in (0, 1))
    rates = {
        name: rng.uniform(0.01, 1.5, [(3, 4, 5)[axis] for axis in axes]) for name, (_, axes) in AXES.items()
    }
    variant = {"tangent": tangent, "retraction": retraction}
    schedule = {name: lambda count, rate=rate: jnp.float32(rate) for name, rate in rates.items()}
    new = moved(w, s, schedule, rotate=lambda path, leaf: AXES[path][0], **variant)
    for name, (_, axes) in AXES.items():
        expected = by_vector(axes, w[name], s[name], rates[name], **variant)
        np.testing.assert_allclose(new[name], expected, rtol=0, atol=1e-6 * oracle.norm(expected))


def test_a_stack_of_layers_is_the_layers_apart():
    names = "abc"
    apart = {name: random_pair((4, 5), seed, jnp.float32) for seed, name in enumerate(names)}
    # Layers of very different sizes; in the second step, one has no direction.
    w = {name: apart[name][0] * 10.0**exponent for name, exponent in zip(names, (-12, 0, 12), strict=True)}
    g = {name: apart[name][1] * 10.0**exponent for name, exponent in zip(names, (3, -9, 0), strict=True)}
    stack = lambda tree: {"kernel": jnp.stack([tree[name] for name in names])}
    rates = {"a": 0.1, "b": 0.2, "c": 0.3}
    for step in (g, {**g, "b": g["b"].at[0, 0].set(jnp.nan)}):
        expected = one_step(w, step, rates)
        rate = {"kernel": jnp.array([0.1, 0.2, 0.3])}
        stacked = one_step(stack(w), stack(step), rate, rotate="stacked_layer")["kernel"]
        for i, name in enumerate(names):
            scale = oracle.norm(w[name])
            np.testing.assert_allclose(stacked[i] / scale, expected[name] / scale, rtol=0, atol=1e-7)
        assert np.any(stacked[1] != 0) == (step is g)


def test_stacked_biases_do_not_rotate():
    params = {"bias": jnp.ones((3, 5)), "kernel": jnp.ones((3, 4, 5))}
    optimizer = layca(0.1, rotate="stacked_layer")
    norms = optimizer.init(params).initial_norm
    assert norms.keys() == {"kernel"}
    np.testing.assert_allclose(norms["kernel"], np.sqrt([20.0, 20.0, 20.0]), rtol=1e-6)
    g = jax.tree.map(lambda x: x + 1, params)
    np.testing.assert_allclose(one_step(params, g, 0.1, rotate="stacked_layer")["bias"], -0.1 * g["bias"])


def test_every_neuron_keeps_its_norm_and_turns_by_its_own_angle():
    w, s = random_pair((3, 3, 4, 6))
    rates = np.linspace(0.05, 0.5, 6)
    new = moved(w, s, jnp.float32(rates), rotate="neuron")
    for i, rate in enumerate(rates):
        assert oracle.norm(new[..., i]) == pytest.approx(oracle.norm(w[..., i]), rel=1e-6)
        assert oracle.angle(new[..., i], w[..., i]) == pytest.approx(np.arctan(rate), rel=1e-5)
    np.testing.assert_allclose(new, by_vector((3,), w, s, rates), atol=1e-5)


@pytest.mark.parametrize(("cosine", "turned"), [(0.0, 0.100), (-0.5, 0.091), (-0.9, 0.048)])
def test_without_the_projection_the_rate_is_not_the_angle(cosine, turned):
    w, t = (np.asarray(x, np.float64) for x in random_pair((6, 7)))
    t = t - np.sum(t * w) / np.sum(w * w) * w
    s = cosine * w / oracle.norm(w) + np.sqrt(1 - cosine**2) * t / oracle.norm(t)
    w, s = jnp.float32(w), jnp.float32(s)
    assert round(oracle.angle(w, moved(w, s, 0.1, tangent=False)), 3) == turned
    assert oracle.angle(w, moved(w, s, 0.1)) == pytest.approx(np.arctan(0.1), rel=1e-5)


@pytest.mark.parametrize("rate", [1e-3, 3**-3, 1.0, 3.0])
def test_the_geodesic_turns_by_exactly_the_rate(rate):
    w, s = random_pair((6, 7))
    assert oracle.angle(w, moved(w, s, rate, retraction="geodesic")) == pytest.approx(rate, rel=1e-5)


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        (((1, 3),), lambda w: [w[:, i : i + 4] for i in (0, 4, 8)]),
        ((0, (2, 2)), lambda w: [w[i, :, j : j + 3] for i in range(2) for j in (0, 3)]),
        (((-1, 6),), lambda w: [w[..., i] for i in range(6)]),
    ],
)
def test_pieces_of_an_axis_are_vectors_of_their_own(axes, expected):
    shape = (5, 12) if axes == ((1, 3),) else (2, 4, 6)
    w, s = random_pair(shape)
    rule = lambda path, leaf: axes
    norms = layca(0.1, rotate=rule).init(w).initial_norm["."]
    rates = np.linspace(0.05, 0.5, norms.size).reshape(norms.shape)
    tracker = track_rotation(rotate=rule)
    update = one_step(w, s, jnp.float32(rates), rotate=rule, flip_sign=False)
    report = rotation_report(tracker.update(update, tracker.init(w), w)[1])["."]
    new = np.asarray(w, np.float64) + np.asarray(update, np.float64)
    vectors = zip(expected(np.asarray(w, np.float64)), expected(np.asarray(s)), expected(new), strict=True)
    for i, (before, step, after) in enumerate(vectors):
        assert norms.ravel()[i] == pytest.approx(oracle.norm(before), rel=1e-6)
        right = oracle.turned(before, step, oracle.norm(before), rates.ravel()[i])
        np.testing.assert_allclose(after, right, rtol=0, atol=3e-7 * oracle.norm(before))
        assert report["last_step"].ravel()[i] == pytest.approx(np.arctan(rates.ravel()[i]), rel=1e-4)


def test_pieces_of_large_leaves_equal_their_layers_apart():
    w, g = random_pair((128, 3 * 96))
    update = one_step(w, g, 0.1, rotate=lambda path, leaf: ((1, 3),))
    for i in range(3):
        part = np.s_[:, 96 * i : 96 * (i + 1)]
        expected = one_step(w[part], g[part], 0.1)
        np.testing.assert_allclose(update[part], expected, rtol=0, atol=3e-7 * oracle.norm(expected))


def test_a_rule_that_rotates_nothing_is_the_plain_optimizer():
    w, g = random_pair((3, 4))
    expected, _ = optax.sgd(0.3).update(g, optax.sgd(0.3).init(w))
    np.testing.assert_array_equal(one_step(w, g, 0.3, rotate=lambda path, leaf: None), expected)


def test_functions_choose_which_leaves_rotate_by_their_path():
    params = {"head": {"kernel": jnp.eye(2)}, "layers": [{"kernel": 2 * jnp.eye(2), "bias": jnp.ones(2)}]}
    seen = []

    def rotate(path, leaf):
        seen.append((path, leaf.shape))
        return () if path.startswith("layers/") else None

    state = layca(0.1, rotate=rotate).init(params)
    assert seen == [("head/kernel", (2, 2)), ("layers/0/bias", (2,)), ("layers/0/kernel", (2, 2))]
    assert state.initial_norm.keys() == {"layers/0/bias", "layers/0/kernel"}
    np.testing.assert_allclose([*state.initial_norm.values()], np.sqrt([2.0, 8.0]), rtol=1e-6)
