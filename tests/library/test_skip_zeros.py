"""Tests that layers whose gradient is zero skip the step with `zeros=True`, in any inner state."""

from collections import OrderedDict
from itertools import pairwise

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from steps import train

from layca_optax import layca, rotation_report, skip_nonfinite, track_rotation

PARAMS = {"expert": jax.random.normal(jax.random.key(1), (4, 6)), "trunk": jnp.eye(5, 3), "bias": jnp.ones(6)}


def random_gradients(seed):
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=w.shape), jnp.float32) for name, w in PARAMS.items()}


def unused(gradients, value=0.0):
    """Returns gradients of a batch in which no token reaches the expert."""
    return {**gradients, "expert": jnp.full((4, 6), value)}


GRADIENTS = [random_gradients(i) if i < 20 else unused(random_gradients(i)) for i in range(100)]
OPTIMIZERS = [
    pytest.param(lambda: optax.chain(optax.scale_by_adam(), layca(3**-5)), id="adam"),
    pytest.param(lambda: optax.chain(optax.trace(0.9), layca(3**-5)), id="momentum", marks=pytest.mark.slow),
    pytest.param(lambda: optax.adam(1e-3), id="adam alone", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_a_layer_without_a_gradient_stands_still_and_others_are_not_affected(make):
    turning = train(make(), GRADIENTS, PARAMS)
    resting = train(skip_nonfinite(make(), zeros=True), GRADIENTS, PARAMS)
    for (params, state), (before, at_twenty) in ((after, resting[20]) for after in resting[21:]):
        np.testing.assert_array_equal(params["expert"], before["expert"])
        moments = jax.tree.leaves_with_path((state.inner_state, at_twenty.inner_state))
        kept = [leaf for path, leaf in moments if getattr(path[-1], "key", None) == "expert"]
        for now, then in zip(kept[: len(kept) // 2], kept[len(kept) // 2 :], strict=True):
            np.testing.assert_array_equal(now, then)
    # Without `zeros`, the moments of old gradients keep turning it.
    assert oracle.angle(turning[20][0]["expert"], turning[-1][0]["expert"]) > 1e-3
    for name in ("trunk", "bias"):
        np.testing.assert_allclose(resting[-1][0][name], turning[-1][0][name], rtol=1e-5, atol=1e-6)
    state = resting[-1][1]
    assert {name: int(n) for name, n in state.zero_steps.items()} == {"expert": 80, "trunk": 0, "bias": 0}
    assert {name: int(n) for name, n in state.skipped_steps.items()} == {"expert": 0, "trunk": 0, "bias": 0}
    assert optax.tree.get(state, "zero_steps") is state.zero_steps


def test_zeros_and_nan_are_counted_apart():
    optimizer = skip_nonfinite(optax.chain(optax.scale_by_adam(), layca(0.1)), zeros=True)
    first = random_gradients(0)
    one_entry = {**first, "expert": jnp.zeros((4, 6)).at[1, 2].set(1e-30)}
    gradients = [first, unused(first), unused(first, jnp.nan), one_entry, unused(first, -0.0)]
    history = train(optimizer, gradients, PARAMS)
    moved = [not np.array_equal(a["expert"], b["expert"]) for (a, _), (b, _) in pairwise(history)]
    assert moved == [True, False, False, True, False]
    assert int(history[-1][1].zero_steps["expert"]) == 2
    assert int(history[-1][1].skipped_steps["expert"]) == 1


def test_without_zeros_they_are_steps_and_no_count_is_kept():
    _, state = train(skip_nonfinite(optax.adam(0.1)), [unused(random_gradients(0))], PARAMS)[-1]
    assert state.zero_steps is None
    assert int(state.skipped_steps["expert"]) == 0
    assert int(state.inner_state[0].count) == 1


def test_zeros_in_integer_and_empty_leaves_and_trees_without_leaves():
    params = {"w": jnp.ones((2, 2)), "steps": jnp.array([1, 2]), "none": jnp.zeros((0, 3))}
    optimizer = skip_nonfinite(optax.trace(0.9), zeros=True)
    gradients = {"w": jnp.zeros((2, 2)), "steps": None, "none": jnp.zeros((0, 3))}
    _, state = optimizer.update(gradients, optimizer.init(params), params)
    assert {name: int(n) for name, n in state.zero_steps.items()} == {"w": 1, "none": 0}
    state = optimizer.init({})
    chex.assert_trees_all_equal(optimizer.update({}, state, {})[1], state)
    mapped = optax.tree.map_params(
        optimizer, lambda _: "moment", optimizer.init(PARAMS), transform_non_params=lambda _: "other"
    )
    assert (mapped.skipped_steps, mapped.zero_steps) == ("other", "other")
    assert mapped.inner_state.trace == dict.fromkeys(PARAMS, "moment")


def rows(path, leaf):
    return (0,) if path == "expert" else None


TRACKED = {
    "layers": lambda: optax.chain(optax.scale_by_adam(), layca(0.1), track_rotation()),
    "rows": lambda: optax.chain(optax.trace(0.9), layca(0.1, rotate=rows), track_rotation(rotate=rows)),
    "plain": lambda: optax.chain(optax.adam(0.1), track_rotation()),
    "partition": lambda: optax.partition(
        {"a": optax.chain(optax.adam(0.1), track_rotation()), "b": optax.sgd(0.1)},
        {"expert": "a", "trunk": "a", "bias": "b"},
    ),
}


@pytest.mark.parametrize("make", TRACKED.values(), ids=TRACKED)
@pytest.mark.parametrize("value", [0.0, pytest.param(jnp.nan, marks=pytest.mark.slow)])
def test_the_tracker_reports_the_steps_that_were_taken(make, value):
    first, second = random_gradients(0), random_gradients(1)
    # It skips the first step, then two after a step, and then trains.
    gradients = [unused(first, value), first, unused(second, value), unused(first, value), second]
    history = train(skip_nonfinite(make(), zeros=value == 0), gradients, PARAMS)
    start = history[0][0]
    for (before, _), (after, state) in pairwise(history):
        for name, report in rotation_report(state).items():
            several = np.ndim(report["last_step"]) > 0
            vectors = lambda tree, name=name, several=several: tree[name] if several else [tree[name]]
            turned = [oracle.angle(a, b) for a, b in zip(vectors(before), vectors(after), strict=True)]
            away = [oracle.cosine_distance(a, b) for a, b in zip(vectors(start), vectors(after), strict=True)]
            np.testing.assert_allclose(np.atleast_1d(report["last_step"]), turned, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(np.atleast_1d(report["from_init"]), away, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.complex64])
@pytest.mark.parametrize("arguments", [{}, {"zeros": True}])
def test_strict_promotion_of_dtypes(dtype, arguments):
    params = {"w": jnp.ones((2, 3), dtype), "b": jnp.ones(3, dtype)}
    optimizer = skip_nonfinite(optax.trace(0.9), **arguments)
    gradients = {"w": jnp.full((2, 3), jnp.nan, dtype), "b": jnp.ones(3, dtype)}
    with jax.numpy_dtype_promotion("strict"):
        updates, state = optimizer.update(gradients, optimizer.init(params), params)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
    np.testing.assert_array_equal(updates["w"], np.zeros((2, 3)))
    assert int(state.skipped_steps["w"]) == 1


@pytest.mark.parametrize(
    "params",
    [{"a/b": jnp.ones(2), "a": {"b": jnp.ones(2)}}, OrderedDict([(1, jnp.ones(2)), ("1", jnp.ones(2))])],
)
def test_names_that_collide_are_refused(params):
    with pytest.raises(ValueError, match=r"two leaves of the parameters are called '(a/b|1)'"):
        skip_nonfinite(optax.sgd(0.1)).init(params)


def per_leaf_tuples():
    """Returns a transformation whose state has a tuple per leaf."""
    init = lambda params: jax.tree.map(lambda w: (jnp.zeros_like(w), jnp.zeros([], jnp.int32)), params)
    step = lambda s, g: (s[0] + g, s[1] + 1)

    def update(updates, state, params=None):
        is_pair = lambda node: isinstance(node, tuple)
        return updates, jax.tree.map(step, state, updates, is_leaf=is_pair)

    return optax.GradientTransformation(init, update)


INNER = {
    "one second moment of a bare array": (optax.scale_by_novograd(), jnp.ones((2, 3))),
    "tuples per leaf": (per_leaf_tuples(), {"w": jnp.ones((2, 3))}),
    "labels by shape": (
        optax.partition(
            {"many": optax.trace(0.9), "one": optax.trace(0.5)},
            lambda tree: {name: "many" if leaf.ndim > 1 else "one" for name, leaf in tree.items()},
        ),
        {"w": jnp.ones((2, 3)), "b": jnp.ones(3)},
    ),
    "named like fields": (optax.scale_by_adam(), {"mu": {"nu": jnp.ones(2)}, "nu": jnp.ones(3)}),
}


@pytest.mark.parametrize(("inner", "params"), INNER.values(), ids=INNER)
def test_what_is_kept_for_a_leaf_is_found_in_any_state(inner, params):
    optimizer = skip_nonfinite(inner)
    _, state = optimizer.update(params, optimizer.init(params), params)
    nan = jax.tree.map(lambda w: w * jnp.nan, params)
    updates, after = optimizer.update(nan, state, params)
    chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, params))
    for (path, now), then in zip(
        jax.tree.leaves_with_path(after.inner_state), jax.tree.leaves(state.inner_state), strict=True
    ):
        if path != (jax.tree_util.GetAttrKey("count"),):
            np.testing.assert_array_equal(now, then)


def test_a_state_of_all_leaves_together_sees_zeros():
    params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    optimizer = skip_nonfinite(optax.flatten(optax.trace(0.9)))
    _, state = optimizer.update(params, optimizer.init(params), params)
    updates, state = optimizer.update({**params, "a": jnp.full(2, jnp.inf)}, state, params)
    np.testing.assert_allclose(state.inner_state.trace, [0.9, 0.9, 1.9, 1.9, 1.9], rtol=1e-6)
    np.testing.assert_array_equal(updates["a"], np.zeros(2))
