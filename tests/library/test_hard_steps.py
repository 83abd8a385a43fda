"""Tests steps nearly parallel to the weights, misleading samples, and gradients through steps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from jax.experimental import checkify
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from steps import one_step, random_pair

from layca_optax import layca, track_rotation

# Leaves of this size are sampled, smaller ones are read whole.
SHAPE = (512, 96)


def across(w, s):
    """Returns the part of a step that is orthogonal to the weights."""
    return s - np.sum(s * w) / np.sum(w * w) * w


def angle_and_norm(w, update):
    new = np.asarray(w, np.float64) + np.asarray(update, np.float64)
    return oracle.angle(w, new), oracle.norm(new) / oracle.norm(w)


@pytest.mark.parametrize("ratio", [1e-1, 1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("sign", [-1, 1])
def test_large_layers_turn_by_the_rate_even_if_the_step_is_nearly_parallel(ratio, scale, sign):
    w, t = (np.asarray(x, np.float64) for x in random_pair(SHAPE))
    t = across(w, t)
    g = scale * (sign * w + ratio * oracle.norm(w) / oracle.norm(t) * t)
    update = one_step(jnp.float32(w), jnp.float32(g), 0.1)
    angle, norm = angle_and_norm(np.float32(w), update)
    assert angle == pytest.approx(np.arctan(0.1), rel=1e-4)
    assert norm == pytest.approx(1, rel=1e-5)
    expected = oracle.turned(w, -t, oracle.norm(w), 0.1) - w
    error = oracle.norm(np.asarray(update, np.float64) - expected) / oracle.norm(expected)
    assert error < max(1e-5, 1e-7 / ratio)


def unlike_samples():
    """Yields weights and steps whose rows 0, 16, 32, … differ from the others. Some of these are sampled."""
    w, s = (np.asarray(x, np.float64) for x in random_pair(SHAPE))
    sampled = np.arange(SHAPE[0])[:, None] % 16 == 0
    for share in (0.0, 1e-3, 0.3, 1e3):
        yield f"rows of weights times {share}", np.where(sampled, share * w, w), s
        yield f"rows of the step times {share}", w, np.where(sampled, share * s, s)
        yield f"rows of both times {share}", np.where(sampled, share * w, w), np.where(sampled, share * s, s)
    yield "a step in the sampled rows only", w, np.where(sampled, s, 0)
    yield "a step in one row, an embedding's", w, np.where(np.arange(SHAPE[0])[:, None] == 5, s, 0)


@pytest.mark.parametrize(
    "scale", [1.0, *(pytest.param(scale, marks=pytest.mark.slow) for scale in (1e-12, 1e12))]
)
@pytest.mark.parametrize("rate", [1e-4, 0.1, 3.0])
@pytest.mark.parametrize(("w", "s"), [pytest.param(w, s, id=name) for name, w, s in unlike_samples()])
def test_the_result_does_not_depend_on_the_sample(w, s, rate, scale):
    angle, norm = angle_and_norm(np.float32(w), one_step(jnp.float32(w), jnp.float32(scale * s), rate))
    assert angle == pytest.approx(np.arctan(rate), rel=1e-4)
    assert norm == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("ratio", [1e-1, 1.5e-2, 5e-3, 1e-3, 1e-5])
@pytest.mark.parametrize("rate", [1e-3, 0.1, 10.0])
def test_steps_nearly_parallel_to_weights_with_a_sample_of_zeros_keep_the_norm(ratio, rate):
    w, t = (np.asarray(x, np.float64) for x in random_pair(SHAPE))
    w[np.arange(SHAPE[0]) % 16 == 0] = 0
    t = across(w, t)
    g = w + ratio * oracle.norm(w) / oracle.norm(t) * t
    angle, norm = angle_and_norm(np.float32(w), one_step(jnp.float32(w), jnp.float32(g), rate))
    assert norm == pytest.approx(1, rel=1e-3)
    # Below a ratio of 0.01, the step may count as one without a direction.
    assert (ratio < 1e-2 and angle == 0) or angle == pytest.approx(np.arctan(rate), rel=1e-3)


@pytest.mark.parametrize("jit", [True, False])
def test_narrow_steps_are_rounded_once(jit):
    w, noise = (jax.random.normal(jax.random.key(i), (784, 784), jnp.bfloat16) for i in range(2))
    g = jnp.asarray(0.1 * noise, jnp.bfloat16)
    optimizer = optax.chain(optax.add_decayed_weights(1.0), layca(1.0))
    update = (jax.jit if jit else lambda f: f)(optimizer.update)(g, optimizer.init(w), w)[0]
    angle, norm = angle_and_norm(w, update)
    assert angle == pytest.approx(np.pi / 4, rel=2e-3)
    assert norm == pytest.approx(1, rel=2e-3)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("momentum", [pytest.param(0, marks=pytest.mark.slow), 0.9])
@pytest.mark.parametrize("shape", [(32, 32), SHAPE])
def test_weight_decay_alone_turns_nothing(dtype, momentum, shape):
    w, _ = random_pair(shape, dtype=dtype)
    optimizer = optax.chain(optax.add_decayed_weights(0.3), optax.trace(momentum), layca(0.1))

    @jax.jit
    def twenty_steps(w):
        def step(carry, _):
            update, state = optimizer.update(jnp.zeros_like(w), carry[1], carry[0])
            return (optax.apply_updates(carry[0], update), state), None

        return jax.lax.scan(step, (w, optimizer.init(w)), length=20)[0][0]

    np.testing.assert_array_equal(twenty_steps(w), w)


def still(rotate, shape):
    """Returns weights, a step of zeros (by neuron, in every other vector), and one parallel to them."""
    w, g = random_pair(shape)
    if rotate == "neuron":
        g = jnp.where(jnp.arange(shape[-1]) % 2 == 0, 0, g)
    return w, {"zero": 0 * w if rotate == "layer" else g, "parallel": 3 * w}


@pytest.mark.parametrize("rotate", ["layer", pytest.param("neuron", marks=pytest.mark.slow)])
@pytest.mark.parametrize("shape", [(6, 4), SHAPE])
@pytest.mark.parametrize("kind", ["zero", "parallel"])
def test_gradients_through_vectors_that_stand_still_are_finite(rotate, shape, kind):
    w, steps = still(rotate, shape)
    moved = lambda w, g, rate: jnp.sum(one_step_of(w, g, rate, rotate) * jnp.cos(w))
    gradients = jax.grad(moved, argnums=(0, 1, 2))(w, steps[kind], 0.1)
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in gradients)
    if rotate == "neuron" and kind == "zero":
        np.testing.assert_array_equal(gradients[1][:, ::2], 0)
        assert jnp.any(gradients[1] != 0)


def one_step_of(w, g, rate, rotate):
    optimizer = layca(rate, rotate=rotate)
    return optimizer.update(g, optimizer.init(w), w)[0]


@pytest.mark.slow
@pytest.mark.parametrize("rotate", ["layer", "neuron"])
@pytest.mark.parametrize("kind", ["zero", "parallel"])
def test_no_nan_arises_on_the_way(rotate, kind):
    w, steps = still(rotate, (6, 4))
    optimizer = layca(0.1, rotate=rotate)
    state = optimizer.init(w)
    checked = checkify.checkify(jax.jit(optimizer.update), errors=checkify.float_checks)
    error, _ = checked(steps[kind], state, w)
    error.throw()
    with jax.debug_nans(True), jax.disable_jit():
        optimizer.update(steps[kind], state, w)


@pytest.mark.parametrize("varying", ["gradients", "parameters", "both", "state"])
@pytest.mark.parametrize("shape", [(4, 6), pytest.param(SHAPE, marks=pytest.mark.slow)])
def test_shard_map_where_only_some_arrays_vary(varying, shape):
    optimizer = optax.chain(layca(0.1), track_rotation())
    ws, gs = (jnp.stack([random_pair(shape, seed)[i] for seed in range(8)]) for i in range(2))
    state = optimizer.init(ws[0])
    per_device = lambda tree: jax.tree.map(lambda x: jnp.stack([x] * 8), tree)
    arguments = {"parameters": ws[0], "gradients": gs[0], "state": state}
    if varying in ("gradients", "both"):
        arguments["gradients"] = gs
    if varying in ("parameters", "both"):
        arguments["parameters"] = ws
    if varying == "state":
        arguments["state"] = per_device(state)
    chosen = {"both": ("gradients", "parameters")}.get(varying, (varying,))
    specs = {name: P("x") if name in chosen else P() for name in arguments}

    def step(arguments):
        local = {
            name: jax.tree.map(lambda x: x[0], a) if name in chosen else a for name, a in arguments.items()
        }
        return optimizer.update(local["gradients"], local["state"], local["parameters"])[0][None]

    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    updates = jax.jit(jax.shard_map(step, mesh=mesh, in_specs=(specs,), out_specs=P("x")))(arguments)
    for i in range(8):
        w = ws[i] if "parameters" in chosen else ws[0]
        g = gs[i] if "gradients" in chosen else gs[0]
        expected = optimizer.update(g, state, w)[0]
        np.testing.assert_allclose(updates[i], expected, rtol=0, atol=3e-7 * oracle.norm(expected))


def test_vmap_of_large_leaves_gives_the_same_as_each_alone():
    ws, gs = (jnp.stack([random_pair(SHAPE, seed)[i] for seed in range(3)]) for i in range(2))
    together = jax.jit(jax.vmap(partial(one_step_of, rate=0.1, rotate="layer")))(ws, gs)
    for i in range(3):
        alone = one_step(ws[i], gs[i])
        np.testing.assert_allclose(together[i], alone, rtol=0, atol=1e-7 * oracle.norm(ws[i]))
