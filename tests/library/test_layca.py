"""Tests Algorithm 1 against a float64 oracle, the state, leaves that do not rotate, and errors."""

import chex
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from hypothesis import strategies as st
from steps import one_step, random_pair

import layca_optax
from layca_optax import layca


@jax.jit
def turned(w, g, rate):
    """Returns the update of one step. The rate is traced, so that JAX compiles once per shape."""
    optimizer = layca(rate)
    return optimizer.update(g, optimizer.init(w), w)[0]


@hypothesis.given(
    shape=st.sampled_from([(2, 1), (7, 7), (1, 5, 3), (2, 3, 1, 4)]),
    dtype=st.sampled_from([jnp.float32, jnp.bfloat16, jnp.float16]),
    rate=st.floats(1e-3, 10),
    log_w=st.integers(-3, 3),
    log_s=st.integers(-3, 3),
    seed=st.integers(0, 2**16),
)
@hypothesis.settings(deadline=None, max_examples=100)
def test_follows_algorithm_1(shape, dtype, rate, log_w, log_s, seed):
    rng = np.random.default_rng(seed)
    w = jnp.asarray(rng.normal(size=shape) * 10.0**log_w, dtype)
    g = jnp.asarray(rng.normal(size=shape) * 10.0**log_s, dtype)
    # A step that is parallel to the weights within 4 eps of its dtype turns nothing.
    least = max(1e-3, 5 * float(jnp.finfo(dtype).eps))
    hypothesis.assume(oracle.norm(w) > 0 and least < oracle.angle(w, g) < np.pi - least)
    update = turned(w, g, rate)
    expected = oracle.layca_step(w, -np.asarray(g, np.float64), w, rate) - np.asarray(w, np.float64)
    assert update.dtype == dtype
    # Updates are rounded to their dtype, and float16 has a smallest number.
    atol = 2e-5 * oracle.norm(w) if dtype == jnp.float32 else 2 * float(jnp.finfo(dtype).eps) * oracle.norm(w)
    np.testing.assert_allclose(np.asarray(update, np.float64), expected, rtol=0, atol=atol)


def test_the_angle_is_right_at_every_scale_of_weights_and_gradient():
    scales = np.meshgrid(10.0 ** np.arange(-31, 38), 10.0 ** np.arange(-37, 38.5, 0.5))
    weights, gradients = (np.float32(scale.ravel()) for scale in scales)
    zero = np.zeros_like(weights)
    w, g = jnp.stack([weights, zero]), jnp.stack([zero, gradients])
    new = np.asarray(w, np.float64) + np.asarray(one_step(w, g, rotate="neuron"), np.float64)
    np.testing.assert_allclose(np.arctan2(-new[1], new[0]), np.arctan(0.1), rtol=1e-5)


@pytest.mark.usefixtures("float64")
def test_follows_algorithm_1_in_float64():
    w, g = random_pair((6, 5), dtype=jnp.float64)
    expected = oracle.layca_step(w, -g, w, 0.3)
    np.testing.assert_allclose(w + one_step(w, g, 0.3), expected, rtol=1e-13, atol=1e-14)


def test_a_traced_nan_rate_gives_a_zero_update():
    params = {"kernel": jnp.eye(2), "bias": jnp.ones(2)}

    @jax.jit
    def update(rate):
        optimizer = layca(rate)
        return optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)[0]

    for leaf in jax.tree.leaves(update(jnp.nan)):
        np.testing.assert_array_equal(leaf, np.zeros(leaf.shape))
    assert np.any(update(0.1)["kernel"] != 0)


def test_state_is_one_norm_per_rotating_leaf_by_path_and_never_changes():
    params = {"b": 2 * jnp.ones((2, 2), jnp.bfloat16), "a": jnp.ones((3, 4)), "c": jnp.ones(5)}
    optimizer = layca(0.1)
    state = optimizer.init(params)
    assert isinstance(state, layca_optax.LaycaState)
    assert {name: norm.dtype for name, norm in state.initial_norm.items()} == {
        "a": jnp.float32,
        "b": jnp.float32,
    }
    np.testing.assert_allclose(
        [state.initial_norm["a"], state.initial_norm["b"]], [np.sqrt(12), 4.0], rtol=1e-7
    )
    chex.assert_trees_all_equal(state.others, optax.EmptyState())
    _, new = optimizer.update(params, state, params)
    chex.assert_trees_all_equal(new.initial_norm, state.initial_norm)
    chex.assert_trees_all_equal_structs(new, state)
    assert int(new.count) == int(state.count) + 1


@pytest.mark.parametrize("params", [{}, (), {"a": None}, {"a": optax.MaskedNode()}])
def test_trees_without_leaves(params):
    optimizer = layca(0.1)
    state = optimizer.init(params)
    assert state.initial_norm.shape == ()
    update, new = optimizer.update(params, state, params)
    assert jax.tree.structure(update) == jax.tree.structure(params)
    chex.assert_trees_all_equal_structs(state, new)


def test_leaves_that_do_not_rotate_take_the_plain_step():
    params = {"kernel": jnp.eye(3), "bias": jnp.zeros(3), "z": jnp.ones(2, jnp.complex64)}
    g = {"kernel": jnp.ones((3, 3)), "bias": jnp.array([1.0, 2.0, 3.0]), "z": jnp.array([1j, 2.0])}
    down, up = one_step(params, g), one_step(params, g, flip_sign=False)
    np.testing.assert_allclose(down["bias"], [-0.1, -0.2, -0.3], rtol=1e-6)
    np.testing.assert_allclose(down["z"], [-0.1j, -0.2], rtol=1e-6)
    np.testing.assert_allclose(up["bias"], [0.1, 0.2, 0.3], rtol=1e-6)
    np.testing.assert_allclose(
        params["kernel"] + up["kernel"],
        oracle.layca_step(np.eye(3), np.ones((3, 3)), np.eye(3), 0.1),
        atol=1e-6,
    )


def test_integers_get_a_zero_update():
    params = {"kernel": jnp.eye(2), "steps": jnp.array([3, 4])}
    gradient = jax.grad(lambda p: jnp.sum(p["kernel"]) ** 2, allow_int=True)(params)
    updates = one_step(params, gradient)
    assert updates["steps"].dtype == params["steps"].dtype
    np.testing.assert_array_equal(optax.apply_updates(params, updates)["steps"], params["steps"])


def test_others_gets_the_updates_of_its_leaves_and_its_output_is_added_unchanged():
    params = {"bias": jnp.array([1.0, 2.0]), "kernel": jnp.eye(2), "n": jnp.array(1)}
    g = {"bias": jnp.array([3.0, 4.0]), "kernel": jnp.ones((2, 2)), "n": jnp.array(0)}
    updates = one_step(params, g, others=optax.set_to_zero())
    np.testing.assert_array_equal(updates["bias"], [0, 0])
    others = optax.chain(optax.add_decayed_weights(0.5), optax.scale_by_learning_rate(0.01))
    optimizer = layca(0.1, others=others)
    state = optimizer.init(params)
    updates, state = optimizer.update(g, state, params)
    np.testing.assert_allclose(updates["bias"], [-0.035, -0.05], rtol=1e-6)
    np.testing.assert_array_equal(updates["kernel"], one_step(params, g)["kernel"])

    seen = []
    spy = optax.stateless(lambda u, p: seen.append((u, p)) or u)
    layca(0.1, others=spy).update(g, layca(0.1, others=spy).init(params), params)
    for tree in seen[0]:
        assert isinstance(tree["kernel"], optax.MaskedNode)
        assert isinstance(tree["n"], optax.MaskedNode)
    np.testing.assert_array_equal(seen[0][0]["bias"], g["bias"])


def test_others_may_be_an_object_that_only_has_init_and_update():
    params = {"kernel": jnp.eye(2), "bias": jnp.zeros(2)}
    optimizer = layca(0.1, others=optax.MultiSteps(optax.sgd(0.5), every_k_schedule=2))
    state, biases = optimizer.init(params), []
    for _ in range(2):
        updates, state = optimizer.update(jax.tree.map(jnp.ones_like, params), state, params)
        biases.append(updates["bias"].tolist())
    assert biases == [[0, 0], [-0.5, -0.5]]


def test_a_finished_optimizer_with_flip_sign_false_equals_its_direction_with_true():
    w, g = random_pair((5, 6))
    finished = optax.chain(optax.adam(1.0), layca(0.1, flip_sign=False))
    direction = optax.chain(optax.scale_by_adam(), layca(0.1))
    a, _ = finished.update(g, finished.init(w), w)
    b, _ = direction.update(g, direction.init(w), w)
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)
    assert float(jnp.sum(a * g)) < 0


def test_the_same_under_jit_vmap_scan_and_donation():
    w, g = random_pair((4, 6))
    expected = one_step(w, g)
    np.testing.assert_allclose(layca(0.1).update(g, layca(0.1).init(w), w)[0], expected, atol=1e-6)
    rates = jnp.array([0.1, 0.2])
    batch = jax.vmap(lambda r: layca(r).update(g, layca(r).init(w), w)[0])(rates)
    np.testing.assert_allclose(batch[0], expected, atol=1e-6)
    np.testing.assert_allclose(batch[1], one_step(w, g, 0.2), atol=1e-6)

    @jax.jit
    def scanned(w, state):
        def body(carry, _):
            update, state = layca(0.1).update(g, carry[1], carry[0])
            return (carry[0] + update, state), None

        return jax.lax.scan(body, (w, state), None, length=2)[0]

    second = w + expected + one_step(w + expected, g)
    np.testing.assert_allclose(scanned(w, layca(0.1).init(w))[0], second, atol=1e-6)

    params = {"w": jnp.array(w)}
    state = layca(0.1).init(params)
    step = jax.jit(lambda p, s: layca(0.1).update({"w": g}, s, p), donate_argnums=(0, 1))
    np.testing.assert_allclose(step(params, state)[0]["w"], expected, atol=1e-6)


def errors():
    eye, two = jnp.eye(2), {"kernel": jnp.eye(2), "bias": jnp.ones(2)}
    complex_leaf = {"z": jnp.ones((2, 2), jnp.complex64)}
    yield "unknown rule", lambda: layca(rotate="layers"), "did you mean 'layer'"
    yield "others is a number", lambda: layca(others=1e-3), "scale_by_learning_rate.* not a float"
    yield "others is not called", lambda: layca(others=optax.adam), "optax transformation .* not a function"
    yield "rule of another type", lambda: layca(rotate=3), "a function"
    yield "unknown retraction", lambda: layca(retraction="exp"), "geodesic"
    yield "negative rate", lambda: layca(-0.1), "not negative"
    yield "nan rate", lambda: layca(float("nan")), "finite"
    yield "nested infinite rate", lambda: layca({"a": {"b": np.inf}}), "'a/b'"
    yield "rate of another type", lambda: layca("0.1"), "number"
    yield "zero leaf", lambda: layca().init({"a": {"w": jnp.zeros((2, 2))}}), "start at zero, .*: 'a/w'"
    yield "complex leaf", lambda: layca().init(complex_leaf), "'z' is complex"
    yield "axis out of range", lambda: layca(rotate=lambda p, x: (2,)).init(eye), "no axis 2"
    yield "uneven pieces", lambda: layca(rotate=lambda p, x: ((1, 3),)).init(eye), "into 3 equal pieces"
    yield "no pieces", lambda: layca(rotate=lambda p, x: ((1, 0),)).init(eye), "into 0 equal pieces"
    yield "pieces of no axis", lambda: layca(rotate=lambda p, x: ((2, 1),)).init(eye), "no axis 2"
    neuron = layca(rotate="neuron")
    yield "another rule", lambda: neuron.update(eye, layca().init(eye), eye), r"shape \(\) instead of \(2,\)"
    yield "another name", lambda: layca().update(two, layca().init({"w": eye}), two), "'w' is in the state"
    yield "one name twice", lambda: layca().init({"a/b": eye, "a": {"b": eye}}), "called 'a/b'"
    yield "axis twice", lambda: layca(rotate=lambda p, x: (0, -2)).init(eye), "twice"
    yield "rule returns True", lambda: layca(rotate=lambda p, x: True).init(eye), "True for '.'"
    yield "no params", lambda: layca().update(eye, layca().init(eye)), "update\\(updates, state, params\\)"
    yield "other leaves", lambda: layca().update(eye, layca().init(two), two), "same leaves"
    yield "other shape", lambda: one_step(two, {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(2)}), "'kernel'"
    yield ("other state", lambda: layca().update(two, layca().init({}), two), "'kernel' rotates, but is not")
    yield "rate without leaf", lambda: layca({"kernal": 0.1, "bias": 0.1}).init(two), "'kernal'.*'kernel'"
    yield "leaf without rate", lambda: layca({"kernel": 0.1}).init(two), "covers the parameter 'bias'"
    yield "rate of a deeper tree", lambda: layca({"kernel": {"a": 0.1}, "bias": 0.1}).init(two), "'kernel'"
    yield "rate of another shape", lambda: layca(jnp.ones(3)).init(eye), r"shape \(3,\)"


@pytest.mark.parametrize(("call", "message"), [pytest.param(c, m, id=name) for name, c, m in errors()])
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
