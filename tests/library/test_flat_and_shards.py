"""Tests Layca inside `optax.flatten` and `shard_map`, where arrays are not the leaves of the parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from jax.sharding import PartitionSpec as P

from layca_optax import describe, layca, track_rotation

PARAMS = {"bias": jnp.ones(3), "kernel": jnp.arange(1.0, 13.0).reshape(4, 3)}


@pytest.mark.parametrize("rotate", ["layer", "stacked_layer", "neuron"])
@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize("make", [layca, track_rotation])
def test_inside_flatten_nothing_would_turn_which_is_an_error(make, jitted, rotate):
    for optimizer in (
        optax.flatten(make(rotate=rotate)),
        optax.flatten(optax.chain(optax.scale_by_adam(), make(rotate=rotate))),
        optax.chain(optax.flatten(optax.MultiSteps(make(rotate=rotate), 2))),
    ):
        init = jax.jit(optimizer.init) if jitted else optimizer.init
        with pytest.raises(ValueError, match=rf"optax.flatten .* rotate='{rotate}' turns nothing\. .*out of"):
            init(PARAMS)


def test_flatten_around_others_and_with_a_function_is_what_was_asked_for():
    optimizer = optax.chain(optax.flatten(optax.scale_by_adam()), layca(others=optax.flatten(optax.sgd(0.1))))
    optimizer.init(PARAMS)
    optimizer = optax.flatten(layca(0.1, rotate=lambda path, leaf: ()))
    updates, _ = optimizer.update(PARAMS | {"bias": -jnp.ones(3)}, optimizer.init(PARAMS), PARAMS)
    before, after = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
        for tree in (PARAMS, optax.apply_updates(PARAMS, updates))
    )
    assert oracle.angle(before, after) == pytest.approx(np.arctan(0.1), rel=1e-5)


@pytest.mark.parametrize("params", [jnp.ones(3), [jnp.ones(3)], {"w": jnp.ones(3)}])
def test_parameters_with_one_axis_of_their_own_take_the_plain_step(params):
    updates, _ = layca(0.1).update(params, layca(0.1).init(params), params)
    np.testing.assert_allclose(jax.tree.leaves(updates)[0], [-0.1] * 3, rtol=1e-6)


def inside_shard_map(spec):
    """Returns what `describe` says of a leaf inside `shard_map`, the leaf, its gradient and its update."""
    mesh, said = jax.make_mesh((2,), ("x",)), []

    @jax.jit
    @jax.shard_map(mesh=mesh, in_specs=(spec, spec), out_specs=spec)
    def step(w, g):
        said.append(describe({"w": w}))
        return layca(0.1).update(g, layca(0.1).init(w), w)[0]

    w, g = (jax.random.normal(jax.random.key(seed), (8, 3)) for seed in (0, 1))
    with jax.set_mesh(mesh):
        update = step(*jax.device_put((w, g), jax.NamedSharding(mesh, spec)))
    return said[0].splitlines()[-1], w, g, jax.device_get(update)


def test_in_shard_map_each_piece_turns_separately_and_describe_says_so():
    said, w, g, update = inside_shard_map(P("x"))
    for half in (slice(0, 4), slice(4, 8)):
        assert oracle.angle(w[half], w[half] + update[half]) == pytest.approx(np.arctan(0.1), rel=1e-5)
    assert said.startswith("! inside shard_map over 'x', 'w' may differ between devices")
    # The whole leaf, sharded in the same way, turns as one vector.
    mesh = jax.make_mesh((2,), ("x",))
    with jax.set_mesh(mesh):
        w_, g_ = jax.device_put((w, g), jax.NamedSharding(mesh, P("x")))
        update = jax.jit(lambda w, g: layca(0.1).update(g, layca(0.1).init(w), w)[0])(w_, g_)
    expected = oracle.layca_step(w, -np.asarray(g), w, 0.1)
    np.testing.assert_allclose(w + jax.device_get(update), expected, atol=1e-5)


def test_in_shard_map_describe_does_not_mention_whole_leaves():
    said, w, g, update = inside_shard_map(P())
    assert "!" not in said
    np.testing.assert_allclose(w + update, oracle.layca_step(w, -np.asarray(g), w, 0.1), atol=1e-5)
