"""Tests the angle and the norm at every scale and in every dtype, and steps without a direction."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from steps import one_step, random_pair

from layca_optax import layca
from layca_optax._turn import RETRACTIONS

TINY, HUGE = (float(x) for x in (jnp.finfo(jnp.float32).tiny, jnp.finfo(jnp.float32).max))


@pytest.mark.parametrize("shape", [(4, 5), (64, 64), (3, 3, 32, 64), (784, 784)])
def test_one_turn_is_arctan_of_the_rate_at_the_same_norm(shape):
    w, g = random_pair(shape)
    for rate in (1e-2, 1 / 27, 1.0):
        new = np.asarray(w, np.float64) + np.asarray(one_step(w, g, rate), np.float64)
        assert oracle.angle(w, new) == pytest.approx(np.arctan(rate), rel=1e-5)
        assert oracle.norm(new) == pytest.approx(oracle.norm(w), rel=1e-6)


def test_ten_thousand_steps_keep_the_norm_and_the_angle():
    w, _ = random_pair((16, 24))
    optimizer = layca(3**-3)

    def step(carry, key):
        w, state = carry
        update, state = optimizer.update(jax.random.normal(key, w.shape), state, w)
        new = optax.apply_updates(w, update)
        return (new, state), (w, new)

    keys = jax.random.split(jax.random.key(0), 10_000)
    (last, state), (before, after) = jax.jit(lambda c, k: jax.lax.scan(step, c, k))(
        (w, optimizer.init(w)), keys
    )
    assert oracle.norm(last) == pytest.approx(oracle.norm(w), rel=1e-6)
    assert int(state.count) == 10_000
    angles = [oracle.angle(a, b) for a, b in zip(np.asarray(before), np.asarray(after), strict=True)]
    np.testing.assert_allclose(angles, np.arctan(3**-3), rtol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "rate"), [(jnp.bfloat16, 3**-3), (jnp.bfloat16, 3**-5), (jnp.float16, 3**-3)]
)
def test_ten_thousand_steps_keep_the_norm_of_narrow_weights(dtype, rate):
    w, _ = random_pair((32, 32), dtype=dtype)
    optimizer = layca(rate)

    def step(carry, key):
        w, state = carry
        update, state = optimizer.update(jax.random.normal(key, w.shape, dtype), state, w)
        return (optax.apply_updates(w, update), state), None

    @jax.jit
    def thousand_steps(carry, key):
        return jax.lax.scan(step, carry, jax.random.split(key, 1000))[0]

    carry = w, optimizer.init(w)
    for key in jax.random.split(jax.random.key(0), 10):
        carry = thousand_steps(carry, key)
        assert oracle.norm(carry[0]) == pytest.approx(oracle.norm(w), rel=1e-3)


def test_small_steps_of_bfloat16_weights_are_lost_as_the_docstring_says():
    narrow, g = random_pair((64, 64), dtype=jnp.bfloat16)
    for rate, lost in ((3**-3, 0.05), (1e-3, 0.78)):
        new = optax.apply_updates(narrow, one_step(narrow, g, rate))
        assert float(jnp.mean(new == narrow)) == pytest.approx(lost, abs=0.02)
    optimizer = layca(1e-3)

    @jax.jit
    def hundred_steps(w):
        def step(carry, _):
            update, state = optimizer.update(g.astype(w.dtype), carry[1], carry[0])
            return (optax.apply_updates(carry[0], update), state), None

        return jax.lax.scan(step, (w, optimizer.init(w)), length=100)[0][0]

    for w, turned in ((narrow, 0.07), (narrow.astype(jnp.float32), 0.1)):
        assert oracle.angle(hundred_steps(w), w) == pytest.approx(turned, abs=0.003)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
def test_only_the_direction_of_the_step_matters(scale):
    w, g = random_pair((8, 9))
    np.testing.assert_allclose(one_step(w, g * scale), one_step(w, g), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("largest", [HUGE, 1e-35])
def test_steps_at_the_ends_of_float32(largest):
    w, g = (np.asarray(x) for x in random_pair((8, 9)))
    g = g / np.max(np.abs(g))
    step = g * np.float32(largest)
    np.testing.assert_allclose(one_step(w, step), one_step(w, g), rtol=1e-6, atol=3e-7)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("largest", [2e-38, 1e-38, 1e-40, 1e-44])
def test_entries_that_are_not_normal_numbers_count_or_are_taken_as_zero(dtype, largest):
    w, g = (np.asarray(x) for x in random_pair((8, 9)))
    w, g = w.astype(dtype), (g / np.max(np.abs(g)) * largest).astype(dtype)
    exact = g.astype(np.float64)
    flushed = np.where(np.abs(exact) < TINY, 0, exact)
    update = np.asarray(one_step(w, g), np.float64)
    w = w.astype(np.float64)
    expected = [
        oracle.turned(w, -step / largest, oracle.norm(w), 0.1) - w if np.any(step) else np.zeros(w.shape)
        for step in (exact, flushed)
    ]
    atol = 4 * oracle.norm(w) * float(jnp.finfo(dtype).eps)
    assert any(np.allclose(update, e, rtol=0, atol=atol) for e in expected)
    # The angle is right, whatever the direction, or nothing moves.
    assert not np.any(update) or oracle.angle(w, w + update) == pytest.approx(np.arctan(0.1), rel=1e-3)


@pytest.mark.parametrize("scale", [6e-8, 1e-6, 2e4])
def test_float16_steps_at_both_ends(scale):
    w, g = random_pair((8, 9))
    w, g = w.astype(jnp.float16), (g * scale).astype(jnp.float16)
    expected = oracle.layca_step(w, -np.asarray(g, np.float64), w, 0.1) - np.asarray(w, np.float64)
    np.testing.assert_allclose(np.asarray(one_step(w, g), np.float64), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_weights_of_any_size(scale):
    w, g = random_pair((8, 9))
    np.testing.assert_allclose(one_step(w * scale, g) / scale, one_step(w, g), rtol=2e-6, atol=1e-6)


def test_norms_of_tiny_and_huge_weights_are_right():
    w, _ = random_pair((5, 5))
    for scale in (1e-30, 1e30):
        norm = layca().init(w * scale).initial_norm["."]
        assert float(norm) == pytest.approx(oracle.norm(w) * scale, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-34, 1e-36])
def test_updates_of_tiny_weights_are_right_up_to_the_smallest_normal_number(scale):
    w, g = random_pair((8, 9))
    w = w * scale
    expected = oracle.layca_step(w, -g, w, 0.1) - np.asarray(w, np.float64)
    np.testing.assert_allclose(np.asarray(one_step(w, g), np.float64), expected, rtol=1e-5, atol=1.5 * TINY)


def test_vectors_too_long_for_an_update_stand_still():
    w, g = random_pair((8, 9))
    w = w / oracle.norm(w)
    turns = {"w": w * (0.9 * HUGE / 4)}
    new = np.asarray(turns["w"], np.float64) + np.asarray(one_step(turns, {"w": g})["w"], np.float64)
    assert oracle.angle(turns["w"], new) == pytest.approx(np.arctan(0.1), rel=1e-5)
    for factor in (HUGE / 2, HUGE):
        np.testing.assert_array_equal(one_step(w * factor, g), np.zeros(w.shape))
    # In float16 the largest entry is the limit: an update of -120,000 does not exist.
    w = jnp.array([[6e4, 3.0]], jnp.float16)
    assert np.all(np.isfinite(one_step(w, w[:, ::-1], 3.1, retraction="geodesic")))
    # In bfloat16, as in float32, the norm is the limit.
    w = jnp.array([[0.9 * HUGE / 4, 1e37]], jnp.bfloat16)
    update, long = one_step(w, w[:, ::-1], 3.1, retraction="geodesic"), np.asarray(w, np.float64)
    np.testing.assert_allclose(np.float32(update), oracle.turned_by(long, -long[:, ::-1], 3.1) - long, 1e-2)


@pytest.mark.parametrize("ratio", [1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("sign", [-1, 1])
def test_steps_nearly_parallel_to_the_weights_still_turn_by_the_rate(ratio, sign):
    w, t = (np.asarray(x, np.float64) for x in random_pair((32, 32)))
    t -= np.sum(t * w) / np.sum(w * w) * w
    g = jnp.asarray(sign * w + ratio * t * oracle.norm(w) / oracle.norm(t), jnp.float32)
    w = jnp.asarray(w, jnp.float32)
    new = np.asarray(w, np.float64) + np.asarray(one_step(w, g, 0.1), np.float64)
    assert oracle.angle(w, new) == pytest.approx(np.arctan(0.1), rel=1e-4)


@pytest.mark.usefixtures("float64")
def test_float64_steps_that_are_too_parallel_or_too_small_for_float32():
    w, t = (np.asarray(x, np.float64) for x in random_pair((8, 8), dtype=jnp.float64))
    t = t - np.sum(t * w) / np.sum(w * w) * w
    for scale in (1e-290, 1.0, 1e290):
        new = w + np.asarray(one_step(w, (w + 1e-9 * t) * scale, 0.1))
        assert oracle.angle(w, new) == pytest.approx(np.arctan(0.1), rel=1e-10)
        assert oracle.norm(new) == pytest.approx(oracle.norm(w), rel=1e-14)


@pytest.mark.parametrize("rate", [1e5, 1e25, HUGE])
def test_rates_without_bound_turn_by_a_right_angle(rate):
    w, g = random_pair((4, 5))
    for tangent, right_angle in ((True, np.pi / 2), (False, oracle.angle(w, -g))):
        new = w + one_step(w, g, rate, tangent=tangent)
        assert oracle.angle(w, new) == pytest.approx(right_angle, rel=2e-5)
        assert oracle.norm(new) == pytest.approx(oracle.norm(w), rel=1e-6)


def layca_of(**kwargs):
    def update(w, g, rate):
        optimizer = layca(rate, **kwargs)
        return optimizer.update(g, optimizer.init(w), w)[0]

    return jax.jit(update)


VARIANTS = {
    (tangent, retraction): layca_of(tangent=tangent, retraction=retraction)
    for tangent in (True, False)
    for retraction in RETRACTIONS
}
any_float32 = hnp.arrays(
    np.float32, (2, 3), elements=st.one_of(st.floats(width=32), st.floats(-2, 2, width=32)), fill=st.nothing()
)


@hypothesis.given(
    w=any_float32,
    g=any_float32,
    variant=st.sampled_from(list(VARIANTS)),
    rate=st.sampled_from([1e-3, 3**-3, 1.0, 3.0]),
)
@hypothesis.example(
    w=np.float32([[0, 0, 0], [0, HUGE / 2, 0]]),
    g=np.float32([[0, 0, 0], [0, 0, 1]]),
    variant=(True, "geodesic"),
    rate=3.0,
)
@hypothesis.settings(deadline=None, max_examples=400)
def test_any_floats_turn_by_the_rate_and_keep_the_norm_or_stand_still(w, g, variant, rate):
    with np.errstate(all="ignore"):
        update = np.asarray(VARIANTS[variant](w, g, rate))
        scale = float(np.max(np.abs(w)))
    assert np.all(np.isfinite(update))
    if not np.any(update):
        return
    assert np.all(np.isfinite(w))
    assert np.all(np.isfinite(g))
    if scale < 1e7 * TINY:
        return  # The update's entries are not normal numbers.
    before = w.astype(np.float64) / scale
    after = before + update.astype(np.float64) / scale
    assert oracle.norm(after) == pytest.approx(oracle.norm(before), rel=3e-6)
    tangent, retraction = variant
    if tangent:
        along, across = oracle.RETRACTIONS[retraction](rate)
        assert oracle.angle(before, after) == pytest.approx(np.arctan2(across, along), rel=1e-4)


def no_directions():
    w, g = (np.asarray(x) for x in random_pair((4, 4)))
    first = np.arange(16).reshape(4, 4) == 0
    yield "zero step", w, np.zeros_like(g)
    yield "parallel step", w, 3 * w
    yield "antiparallel step", w, np.float32(-0.7) * w
    yield "nan in step", w, np.where(first, np.float32("nan"), g)
    yield "inf in step", w, np.where(first, -np.float32("inf"), g)
    yield "nan in weights", np.where(first, np.float32("nan"), w), g
    yield "inf in weights", np.where(first, np.float32("inf"), w), g


@pytest.mark.parametrize(("w", "g"), [pytest.param(w, g, id=name) for name, w, g in no_directions()])
def test_without_a_direction_only_that_vector_stands_still(w, g):
    other_w, other_g = random_pair((4, 4), seed=1)
    update = one_step({"a": w, "b": other_w}, {"a": g, "b": other_g})
    np.testing.assert_array_equal(update["a"], np.zeros(w.shape))
    np.testing.assert_array_equal(update["b"], one_step(other_w, other_g))
    assert np.any(update["b"] != 0)


def test_an_initial_norm_of_zero_that_init_could_not_see_stands_still():
    w, g = jnp.zeros((2, 2)), jnp.ones((2, 2))
    optimizer = layca(0.1)
    update, _ = optimizer.update(g, jax.jit(optimizer.init)(w), w)
    np.testing.assert_array_equal(update, np.zeros((2, 2)))


@pytest.mark.parametrize("scales", [(1.0, 1.0), (1e-30, 1e-30), (1.0, 1e-30)], ids=str)
@pytest.mark.parametrize("retraction", RETRACTIONS)
def test_the_rate_can_be_differentiated(retraction, scales):
    ws, gs, probes = (list(x) for x in np.random.default_rng(0).normal(size=(3, 2, 4, 3)))
    ws, gs = jax.tree.map(jnp.float32, (ws, [scale * g for scale, g in zip(scales, gs, strict=True)]))

    def probed(rate):
        optimizer = layca(rate, retraction=retraction)
        updates, _ = optimizer.update(gs, optimizer.init(ws), ws)
        return sum(jnp.sum(p * u) for p, u in zip(jax.tree.map(jnp.float32, probes), updates, strict=True))

    def expected(rate):
        new = [
            oracle.turned(w, -np.float64(g), oracle.norm(w), rate, retraction=retraction)
            for w, g in zip(ws, gs, strict=True)
        ]
        return sum(np.sum(p * n) for p, n in zip(probes, new, strict=True))

    h = 1e-5
    slope = (expected(0.3 + h) - expected(0.3 - h)) / (2 * h)
    assert jax.grad(probed)(0.3) == pytest.approx(slope, rel=1e-5, abs=1e-5)
