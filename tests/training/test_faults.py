"""Tests runs whose gradients are NaN in some layers for some steps, and one that does not recover."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import train
from training.config import Flags
from training.optimizer import DIRECTIONS, make_optimizer
from training.tasks import TASKS


def spoil():
    """Makes the gradient of each layer NaN with probability 1/2, in 5 % of the steps."""

    def update(gradients, count, params=None):
        key = jax.random.fold_in(jax.random.key(3), count)
        leaves, treedef = jax.tree.flatten(gradients)
        now, which = jax.random.split(key)
        bad = jax.random.bernoulli(now, 0.05) & jax.random.bernoulli(which, 0.5, [len(leaves)])
        leaves = [jnp.where(bad[i], jnp.nan, leaf) for i, leaf in enumerate(leaves)]
        return jax.tree.unflatten(treedef, leaves), count + 1

    return optax.GradientTransformation(lambda params: jnp.zeros([], jnp.int32), update)


def spoiled(*args):
    return optax.chain(spoil(), make_optimizer(*args))


def history(name, epochs, optimizer=make_optimizer):
    config = Flags(optimizer=name, epochs=epochs).resolved()
    data = TASKS[config.task].load(seed=0)
    run = train.fit(config, data, evaluate_every=epochs, optimizer=optimizer)
    return [record for _, record in run]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_layers_with_nan_gradients_skip_the_step_and_the_steps_are_counted(name):
    records = history(name, 4, spoiled)
    assert all(np.isfinite(record["train_loss"]) for record in records)
    assert records[-1]["train_loss"] < 0.7 * records[0]["train_loss"]
    counts = [record["skipped"] for record in records]
    assert 0 < len(counts[-1]) < len(records[-1]["rotation"])
    assert counts[-1].keys() <= records[-1]["rotation"].keys()
    assert all(type(steps) is int and steps > 0 for steps in counts[-1].values())
    for before, after in pairwise(counts):
        assert all(after[layer] >= steps for layer, steps in before.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", DIRECTIONS)
def test_with_nan_in_every_twentieth_step_accuracy_stays_within_a_point(name):
    clean = history(name, 60)[-1]
    found = history(name, 60, spoiled)[-1]
    assert clean["skipped"] == {}
    assert sum(found["skipped"].values()) > 100
    assert np.isfinite(found["train_loss"])
    assert found["test_accuracy"] == pytest.approx(clean["test_accuracy"], abs=0.01)


@pytest.mark.slow
def test_a_run_whose_loss_stays_nan_ends_and_keeps_its_last_good_state(tmp_path, capsys):
    folder = tmp_path / "run"
    command = ["--no-layca", "--learning-rate", "1e30", "--epochs", "9", "--batch-size", "512"]
    assert train.main([*command, "--out", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "the training loss was not finite for 3 epochs" in said
    assert "not saved; the last good one is" in said
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert 3 <= len(lines) < 9
    assert all('"skipped": {}' in line for line in lines)
