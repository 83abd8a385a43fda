"""Tests errors for states that were set to zero or restored as dictionaries, and `check_state`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from steps import random_pair

from layca_optax import check_state, layca, rotation_report, skip_nonfinite, track_rotation

W, G = random_pair((4, 6))
PARAMS, GRADIENT = {"a": {"kernel": W}, "bias": jnp.ones(6)}, {"a": {"kernel": G}, "bias": jnp.ones(6)}


@pytest.mark.parametrize("rotate", ["layer", "neuron"])
@pytest.mark.parametrize(
    "wrap", [lambda o: o, skip_nonfinite, lambda o: optax.chain(optax.scale_by_adam(), o)]
)
def test_a_state_that_was_reset_by_zeros_is_refused_where_it_can_be_seen(wrap, rotate):
    optimizer = wrap(layca(0.1, rotate=rotate))
    state = jax.tree.map(jnp.zeros_like, optimizer.init(PARAMS))
    with pytest.raises(
        ValueError, match=r"'a/kernel' had the norm 0.*init\(params\).*rebase\(opt_state, params\)"
    ):
        optimizer.update(GRADIENT, state, PARAMS)
    with pytest.raises(ValueError, match="can never turn: 'a/kernel'"):
        check_state(state)
    # Inside jit, values cannot be seen.
    updates, _ = jax.jit(optimizer.update)(GRADIENT, state, PARAMS)
    np.testing.assert_array_equal(updates["a"]["kernel"], np.zeros((4, 6)))


def test_a_reset_of_one_vector_is_refused_but_zero_weights_are_not():
    optimizer = layca(0.1, rotate="neuron")
    state = optimizer.init(W)
    state = state._replace(initial_norm={".": state.initial_norm["."].at[2].set(0)})
    with pytest.raises(ValueError, match="had the norm 0"):
        optimizer.update(G, state, W)
    optimizer.update(G, state, W.at[:, 2].set(0))


def orbax_without_target(state, folder):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "state", state)
        checkpointer.wait_until_finished()
        return checkpointer.restore(folder / "state")


@pytest.mark.parametrize(
    "optimizer",
    [track_rotation(), optax.chain(layca(0.1), track_rotation()), optax.MultiSteps(track_rotation(), 2)],
    ids=["alone", "chain", "MultiSteps"],
)
def test_a_report_on_a_state_restored_without_a_target_says_how_to_restore_it(optimizer, tmp_path):
    state = optimizer.init(PARAMS)
    restored = orbax_without_target(state, tmp_path)
    message = r"dictionaries where it had a TrackRotationState.*jax\.eval_shape\(optimizer\.init, params\)"
    with pytest.raises(ValueError, match=message):
        rotation_report(restored)
    with ocp.StandardCheckpointer() as checkpointer:
        restored = checkpointer.restore(tmp_path / "state", jax.eval_shape(optimizer.init, PARAMS))
    assert rotation_report(restored) == rotation_report(state)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (optax.adam(0.1).init(PARAMS), "it holds ScaleByAdamState, EmptyState: add track_rotation"),
        (layca().init(PARAMS), "it holds LaycaState, EmptyState: add"),
        (PARAMS, "it holds dict: add"),
        (None, "it holds NoneType: add"),
        (0.1, "it holds float: add"),
    ],
)
def test_a_report_on_a_state_without_a_tracker_says_what_it_got(state, message):
    with pytest.raises(ValueError, match=message):
        rotation_report(state)


def test_check_state_passes_what_can_turn():
    tree = {**PARAMS, "small": 1e-30 * W, "large": 1e30 * W}
    for rotate in ("layer", "neuron", lambda path, leaf: None):
        check_state(optax.chain(optax.scale_by_adam(), layca(rotate=rotate)).init(tree))
    check_state(layca().init({}))
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    check_state(nnx.Optimizer(model, layca(), wrt=nnx.Param).opt_state)


@pytest.mark.parametrize("value", [0.0, jnp.nan, jnp.inf, 1e38])
def test_check_state_names_vectors_that_cannot_turn(value):
    params = {"table": jnp.ones((3, 7)).at[0, 5].set(value).at[1:, 5].set(0), "kernel": jnp.eye(7)}
    state = jax.jit(optax.chain(layca(rotate="neuron")).init)(params)
    with pytest.raises(ValueError, match=r"can never turn: 'table' at 5 \(norm ") as error:
        check_state(state)
    assert "kernel" not in str(error.value)
    state = jax.jit(layca().init)({"head": jnp.full((2, 3), value), "kernel": jnp.eye(2)})
    with pytest.raises(ValueError, match=r"can never turn: 'head' \(norm "):
        check_state(state)
    many = jax.jit(layca(rotate=lambda path, leaf: (0, 1)).init)({"w": jnp.full((3, 4, 2), value)})
    with pytest.raises(ValueError, match=r"'w' at \(0, 0\), .*, \(1, 0\), … \(norm"):
        check_state(many)


def test_check_state_names_vectors_in_pieces_on_many_devices():
    mesh = jax.make_mesh((8,), ("x",))
    w = jax.device_put(jnp.ones((4, 16)).at[:, 13].set(0), NamedSharding(mesh, P(None, "x")))
    with jax.set_mesh(mesh):
        state = jax.jit(layca(rotate="neuron").init)({"w": w})
    with pytest.raises(ValueError, match=r"'w' at 13 \(norm 0\)"):
        check_state(state)


def test_check_state_wants_a_state_of_layca_and_values():
    with pytest.raises(ValueError, match="nothing in this state is of layca; it holds ScaleByAdamState"):
        check_state(optax.adam(0.1).init(PARAMS))
    with pytest.raises(ValueError, match="outside jit"):
        jax.jit(check_state)(layca().init(PARAMS))


def test_others_that_are_added_on_resume():
    w, g = {"kernel": jnp.eye(3), "bias": jnp.zeros(3)}, {"kernel": jnp.ones((3, 3)), "bias": jnp.ones(3)}
    old, new = layca(0.1), layca(0.1, others=optax.adam(1e-3))
    state = old.init(w)
    with pytest.raises(ValueError, match="made without `others`"):
        new.update(g, state, w)
    updates, state = new.update(g, state._replace(others=new.init(w).others), w)
    np.testing.assert_allclose(updates["bias"], -1e-3, rtol=1e-5)
