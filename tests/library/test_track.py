"""Tests the numbers of `track_rotation` against a float64 oracle, its state, and its errors."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest

from layca_optax import layca, rotation_report, track_rotation

TRACKER = track_rotation()  # Shared by the tests, so that its update is compiled once per shape.


def normal(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@partial(jax.jit, static_argnums=0)
def compiled_update(tracker, update, state, w):
    """Returns the state only. No `apply_updates` in this program rounds, so the tracker itself must."""
    return tracker.update(update, state, w)[1]


def measured(w, *updates, **kwargs):
    """Returns the report after these updates, and the weights before each of them and after the last."""
    tracker = TRACKER if not kwargs else track_rotation(**kwargs)
    state, weights = tracker.init(w), [w]
    for update in updates:
        state = compiled_update(tracker, update, state, weights[-1])
        weights.append(optax.apply_updates(weights[-1], update))
    return rotation_report(state), weights


def angle_of(distance):
    return 2 * np.arcsin(np.sqrt(distance / 2))


@pytest.mark.parametrize(
    ("dtype", "scale"), [("float32", 1), ("bfloat16", 1), ("float16", 1), ("float16", 2e-5)]
)
@pytest.mark.parametrize("theta", [1e-4, 2e-4, 1.4e-3, 0.1])
@pytest.mark.parametrize("growth", [1.0, 1.01, 1.5])
def test_small_angles_and_distances_of_every_dtype(dtype, scale, theta, growth):
    w = jnp.asarray(scale * normal((40, 50)), dtype)
    exact = np.asarray(w, np.float64)
    small = jnp.asarray(growth * oracle.turned_by(exact, normal((40, 50), 1), theta) - exact, dtype)
    report, (first, second, third) = measured(w, small, -small / 2)
    # A step that changes a norm by a factor 1 + x hides angles below 1e-3 x, in float32.
    hidden = 1e-3 * abs(oracle.norm(third) / oracle.norm(second) - 1) + 1e-7
    expected = oracle.angle(third, first), oracle.angle(third, second)
    assert angle_of(report["."]["from_init"]) == pytest.approx(expected[0], rel=1e-3, abs=hidden)
    assert report["."]["last_step"] == pytest.approx(expected[1], rel=1e-3, abs=hidden)
    assert report["."]["norm"] == pytest.approx(oracle.norm(third) / oracle.norm(first), rel=1e-6)


@pytest.mark.parametrize("theta", [1e-4, 1e-2])
def test_growing_norms_do_not_hide_small_angles(theta):
    first = w = jnp.float32(normal((40, 50)))
    state = TRACKER.init(w)
    for _ in range(20):
        state, w = compiled_update(TRACKER, 0.1 * w, state, w), 1.1 * w
    turn = jnp.float32(oracle.turned_by(np.asarray(w, np.float64), normal((40, 50), 1), theta)) - w
    report = rotation_report(compiled_update(TRACKER, turn, state, w))["."]
    assert angle_of(report["from_init"]) == pytest.approx(oracle.angle(w + turn, first), rel=1e-3)
    assert report["last_step"] == pytest.approx(oracle.angle(w + turn, w), rel=1e-3)
    assert report["norm"] == pytest.approx(1.1**20, rel=1e-5)


def unlike_vectors():
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(256, 64))
    yield "identity", np.eye(128), 1
    yield "pruned", np.where(rng.uniform(size=normal.shape) < 0.95, 0, normal), 1
    rows = np.arange(256)[:, None] % 16
    yield "rows of zeros", np.where(rows == 0, 0, normal), 1
    yield "all but a few rows small", np.where(rows == 0, normal, 1e-3 * normal), 1
    yield "norms that grew a thousand times", normal, 1000


@pytest.mark.parametrize("rotate", ["layer", "neuron"])
@pytest.mark.parametrize("rate", [1e-4, pytest.param(1e-2, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("w", "growth"), [pytest.param(w, growth, id=name) for name, w, growth in unlike_vectors()]
)
def test_vectors_with_very_different_entries(w, growth, rate, rotate):
    w0 = jnp.float32(w)
    grown = jnp.float32(growth * w0) if growth == 1 else w0 + jnp.float32(growth * normal(w.shape, 2))
    layca_stage, tracker = layca(rate, rotate=rotate), track_rotation(rotate=rotate)
    state = tracker.init(w0)
    if growth > 1:
        state = compiled_update(tracker, grown - w0, state, w0)
    update, _ = layca_stage.update(jnp.float32(normal(w.shape, 1)), layca_stage.init(grown), grown)
    report = rotation_report(compiled_update(tracker, update, state, grown))["."]
    new = grown + update
    vectors = [
        np.atleast_2d(np.asarray(x, np.float64).T if rotate == "neuron" else np.ravel(x))
        for x in (w0, grown, new)
    ]
    turns = [oracle.angle(a, b) for a, b in zip(*vectors[1:], strict=True)]
    distances = [oracle.cosine_distance(a, b) for a, b in zip(vectors[0], vectors[2], strict=True)]
    norms = [oracle.norm(b) / oracle.norm(a) for a, b in zip(vectors[0], vectors[2], strict=True)]
    np.testing.assert_allclose(np.ravel(report["last_step"]), turns, rtol=1e-4)
    np.testing.assert_allclose(np.ravel(report["from_init"]), distances, rtol=1e-4)
    np.testing.assert_allclose(np.ravel(report["norm"]), norms, rtol=1e-5)


@pytest.mark.usefixtures("float64")
def test_float64():
    w, u = jnp.asarray(normal((2, 6, 7)))
    report, (first, second) = measured(w, 1e-6 * u)
    assert report["."]["from_init"] == pytest.approx(oracle.cosine_distance(first, second), rel=1e-6)
    assert report["."]["last_step"] == pytest.approx(oracle.angle(first, second), rel=1e-6)


def test_updates_that_bfloat16_rounds_away_do_not_count_as_steps():
    w = jnp.asarray(normal((40, 50)), jnp.bfloat16)
    report, (before, after) = measured(w, jnp.abs(w) / 1000)
    assert jnp.all(before == after)
    assert report["."]["from_init"] < 1e-11
    assert report["."]["last_step"] < 1e-6


def test_large_angles_and_huge_weights():
    w = np.float32([[1.0, 0.0]])
    quarter, half = np.float32([[-1.0, 1.0]]), np.float32([[-2.0, 0.0]])
    right = {"from_init": 1, "last_step": np.pi / 2, "norm": 1}
    assert measured(w, quarter)[0]["."] == pytest.approx(right, rel=1e-6)
    opposite = {"from_init": 2, "last_step": np.pi, "norm": 1}
    assert measured(w, half)[0]["."] == pytest.approx(opposite, rel=1e-6)
    for scale in (1e-30, 1e30):
        report, _ = measured(jnp.asarray(scale * w), jnp.asarray(scale * quarter))
        assert report["."] == pytest.approx(right, rel=1e-6)


def test_one_value_per_vector_and_none_for_leaves_that_do_not_rotate():
    params = {"kernel": jnp.float32(normal((5, 3))), "bias": jnp.ones(3), "n": jnp.array([[1]])}
    updates = {"kernel": 0.1 * jnp.float32(normal((5, 3), 1)), "bias": jnp.ones(3), "n": jnp.array([[0]])}
    report, (before, after) = measured(params, updates, rotate="neuron")
    assert report.keys() == {"kernel"}
    pairs = list(zip(before["kernel"].T, after["kernel"].T, strict=True))
    assert isinstance(report["kernel"]["from_init"], np.ndarray)
    np.testing.assert_allclose(
        report["kernel"]["from_init"], [oracle.cosine_distance(a, b) for a, b in pairs], 1e-4
    )
    np.testing.assert_allclose(report["kernel"]["last_step"], [oracle.angle(a, b) for a, b in pairs], 1e-4)


def test_zero_vectors_have_no_angle_but_may_get_one():
    w, u = jnp.zeros((2, 2)), jnp.eye(2)
    once, _ = measured(w, u)
    assert np.isnan([once["."][key] for key in ("from_init", "last_step", "norm")]).all()
    twice, _ = measured(w, u, u)
    assert np.isnan(twice["."]["from_init"])
    assert twice["."]["last_step"] == pytest.approx(0, abs=1e-6)


def test_with_conditionally_transform_every_third_step_is_measured_and_kept():
    w = jnp.float32(normal((4, 6)))
    updates = jnp.float32(0.1 * normal((7, 4, 6), 1))
    tracker = optax.conditionally_transform(track_rotation(), lambda step, **_: step % 3 == 0)

    def step(carry, update):
        w, state = carry
        update, state = tracker.update(update, state, w)
        return (optax.apply_updates(w, update), state), (w, state)

    (last, _), (weights, states) = jax.jit(lambda c: jax.lax.scan(step, c, updates))((w, tracker.init(w)))
    weights = [*weights, last]
    report = rotation_report(states)["."]
    measured_at = [0, 0, 0, 3, 3, 3, 6]
    np.testing.assert_allclose(
        report["from_init"], [oracle.cosine_distance(w, weights[i + 1]) for i in measured_at], 1e-4
    )
    np.testing.assert_allclose(
        report["last_step"], [oracle.angle(weights[i], weights[i + 1]) for i in measured_at], 1e-4
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_state_is_shaped_at_init_and_shares_nothing_with_the_parameters(dtype):
    params = {"a": jnp.ones((2, 3), dtype), "b": jnp.ones(3), "c": jnp.ones((2, 2))}
    tracker = track_rotation()
    state = tracker.init(params)
    assert state.initial["a"].dtype == dtype
    assert state.initial.keys() == {"a", "c"}
    assert rotation_report(state) == {
        name: {"from_init": 0.0, "last_step": 0.0, "norm": 1.0} for name in "ac"
    }
    abstract = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)
    after = jax.eval_shape(tracker.update, params, state, params)[1]
    assert abstract(jax.eval_shape(lambda: state)) == abstract(after)

    def step(params, state):
        updates = jax.tree.map(lambda w: jnp.full_like(w, 0.5), params)
        updates, state = tracker.update(updates, state, params)
        return optax.apply_updates(params, updates), state

    donating = jax.jit(step, donate_argnums=(0, 1))
    for _ in range(3):
        params, state = donating(params, state)
    np.testing.assert_array_equal(state.initial["a"], np.ones((2, 3)))
    # The norm grew from 2 to 2.5 in one step.
    assert angle_of(rotation_report(state)["a"]["from_init"]) == pytest.approx(0, abs=1e-3 * 0.25)
    assert int(state.count) == 3


def test_updates_pass_through_unchanged_whatever_their_types():
    params = {"a": jnp.eye(2), "none": None, "masked": optax.MaskedNode(), "n": jnp.array(3), "z": (1j,)}
    updates = {**params, "n": np.zeros((), jax.dtypes.float0)}
    tracker = track_rotation()
    out, state = tracker.update(updates, tracker.init(params), params, loss=1.0)
    assert jax.tree.structure(out) == jax.tree.structure(updates)
    np.testing.assert_array_equal(out["a"], updates["a"])
    assert out["n"] is updates["n"]
    assert out["z"] == updates["z"]
    assert rotation_report(state).keys() == {"a"}


@pytest.mark.parametrize("params", [{}, (), {"a": None}, {"a": optax.MaskedNode()}, {"bias": jnp.ones(2)}])
def test_trees_in_which_nothing_rotates(params):
    tracker = track_rotation()
    state = tracker.init(params)
    out, after = jax.jit(tracker.update)(params, state, params)
    assert jax.tree.structure((out, after)) == jax.tree.structure((params, state))
    assert int(after.count) == 1
    assert rotation_report(after) == {}


def test_layers_are_in_the_order_of_their_numbers():
    state = track_rotation().init(
        {f"Dense_{i}": {"kernel": jnp.eye(2)} for i in range(11)} | {"a": [jnp.eye(2)]}
    )
    assert list(rotation_report(state)) == [*(f"Dense_{i}/kernel" for i in range(11)), "a/0"]


def test_a_report_can_be_made_inside_jit():
    params = {"a": jnp.float32(normal((3, 4))), "b": jnp.float32(normal((5, 3))), "bias": jnp.ones(2)}
    updates = jax.tree.map(lambda w: jnp.float32(normal(w.shape, 1)), params)
    for rotate in ("layer", "neuron", lambda path, w: {"a": (), "b": (1,), "bias": None}[path]):
        tracker = track_rotation(rotate=rotate)
        update = lambda state, tracker=tracker: tracker.update(updates, state, params)[1]
        state = update(tracker.init(params))
        inside = jax.jit(lambda state, update=update: rotation_report(update(state)))(tracker.init(params))
        assert inside.keys() == {"a", "b"}
        chex.assert_trees_all_close(inside, rotation_report(state), rtol=1e-6)


def errors():
    eye, two = jnp.eye(2), {"kernel": jnp.eye(2), "bias": jnp.ones(2)}
    init, update = track_rotation().init, track_rotation().update
    yield "unknown rule", lambda: track_rotation(rotate="layers"), "did you mean 'layer'"
    yield "complex", lambda: init({"z": jnp.ones((2, 2), jnp.complex64)}), "'z' is complex"
    yield "one name twice", lambda: init({"a/b": eye, "a": {"b": eye}}), "two leaves .* called 'a/b'"
    yield "no params", lambda: update(eye, init(eye)), r"update\(updates, state, params\)"
    yield "other leaves", lambda: update(eye, init(two), two), "updates and params .* same leaves.*'bias'"
    yield "other shape", lambda: update(two | {"kernel": jnp.ones((2, 3))}, init(two), two), "'kernel'"
    yield "other state", lambda: update(two, init({}), two), "state of track_rotation .*'kernel' rotates"
    yield "state of another shape", lambda: update(two, init({"kernel": jnp.ones((3, 2))}), two), "'kernel'"
    by_neuron = track_rotation(rotate="neuron")
    yield (
        "another rule",
        lambda: by_neuron.update(two, init(two), two),
        r"'kernel' the state has the shape \(\) instead of \(2,\)",
    )
    yield ("no tracker", lambda: rotation_report(layca().init(eye)), r"add track_rotation\(\)")
    chain = optax.chain(track_rotation(), track_rotation(rotate="neuron"))
    yield "two trackers", lambda: rotation_report(chain.init(two)), "two trackers report 'kernel'"


@pytest.mark.parametrize(("call", "message"), [pytest.param(c, m, id=name) for name, c, m in errors()])
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
