"""Tests that every optimizer's state can be mapped over, saved in a checkpoint and pickled."""

import pickle

import chex
import jax
import numpy as np
import optax
import optax.tree
import orbax.checkpoint as ocp
import pytest
from optimizers import GRADIENTS, OPTIMIZERS, PARAMS, SHAPES, every_optimizer, reference, schedule


def is_masked(node):
    return isinstance(node, optax.MaskedNode)


@every_optimizer
def test_map_params_finds_what_has_the_shape_of_a_parameter_and_nothing_else(name):
    state = reference(name).states[-1]
    names = {leaf: leaf for leaf in SHAPES}
    marked = optax.tree.map_params(
        OPTIMIZERS[name](schedule),
        lambda leaf, name: leaf if is_masked(leaf) else name,
        state,
        names,
        transform_non_params=lambda leaf: None,
        is_leaf=is_masked,
    )

    def check(mark, part):
        for leaf in jax.tree.leaves(part):
            if mark is not None:
                assert leaf.shape == SHAPES[mark]
            elif leaf.shape in SHAPES.values():
                # The tracker keeps the first weights by path, not in a tree like the parameters.
                assert any(np.array_equal(leaf, weights) for weights in PARAMS.values())

    # `transform_non_params` is called once for all of Layca's norms.
    jax.tree.map(check, marked, state, is_leaf=lambda node: node is None)
    same = optax.tree.map_params(OPTIMIZERS[name](schedule), lambda leaf: leaf, state)
    chex.assert_trees_all_equal(same, state)


@pytest.fixture(scope="module")
def restored(tmp_path_factory):
    """Restores parameters and state of every optimizer after two steps, from one checkpoint."""
    folder = tmp_path_factory.mktemp("orbax") / "checkpoint"
    # A new process knows shapes but no values.
    init = lambda: {name: (PARAMS, OPTIMIZERS[name](schedule).init(PARAMS)) for name in OPTIMIZERS}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(
            folder, {name: (reference(name).params[2], reference(name).states[2]) for name in OPTIMIZERS}
        )
        checkpointer.wait_until_finished()
        return checkpointer.restore(folder, jax.eval_shape(init))


@every_optimizer
def test_orbax(name, restored):
    assert_continues(name, *restored[name])


@every_optimizer
def test_pickle(name):
    alone = reference(name)
    assert_continues(name, *pickle.loads(pickle.dumps((alone.params[2], alone.states[2]))))


def assert_continues(name, params, state):
    """Checks that training from the restored state ends where training without a break does, bit for bit."""
    alone = reference(name)
    chex.assert_trees_all_equal((params, state), (alone.params[2], alone.states[2]))
    for gradient in GRADIENTS[2:]:
        updates, state = OPTIMIZERS[name](schedule).update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    chex.assert_trees_all_equal((params, state), (alone.params[-1], alone.states[-1]))
