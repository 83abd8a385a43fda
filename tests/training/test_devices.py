"""Tests that a run on several devices computes what it computes on one."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

import train
from data import standardise
from training.config import Flags, UsageError
from training.optimizer import make_optimizer
from training.parallel import Devices, all_devices
from training.step import train_step
from training.tasks import TASKS

TASK = TASKS["mnist5k-mlp"]
DATA = TASK.load(seed=0)
CONFIG = Flags(epochs=3).resolved()


def one_device():
    return Devices(Mesh(np.array(jax.devices()[:1]), ("devices",), axis_types=(AxisType.Auto,)))


def first_steps(devices, steps=3):
    """Returns the losses of the first steps of 128 images, and the state after them."""
    program = train.compile_program(CONFIG, devices)
    state = program.init(np.uint32(0), CONFIG.hparams())
    optimizer = make_optimizer("sgd", True, CONFIG.hparams(), program.depths, lambda count: 1.0)
    # With explicit shardings; otherwise the compiler chooses them, and the program differs.
    shardings = devices.of_state(state), devices.replicated
    step = jax.jit(partial(train_step, program.model, optimizer), out_shardings=shardings)
    losses = []
    for start in range(0, 128 * steps, 128):
        images = np.asarray(standardise(jnp.asarray(DATA.train_images[start : start + 128]), DATA.scale))
        labels = DATA.train_labels[start : start + 128]
        state, metrics = step(state, devices.put_rows(images), devices.put_rows(labels))
        losses.append(float(metrics.loss / metrics.images))
    return losses, state


@pytest.fixture(scope="module")
def first_steps_on_one():
    return first_steps(one_device())


@pytest.mark.parametrize("shard_params", [pytest.param(False, marks=pytest.mark.slow), True])
def test_the_first_steps_on_8_devices_are_those_on_one(shard_params, first_steps_on_one):
    devices = all_devices(shard_params)
    assert devices.mesh.size == 8
    (losses, state), (expected_losses, expected) = first_steps(devices), first_steps_on_one
    np.testing.assert_allclose(losses, expected_losses, rtol=0, atol=1e-5)
    # Batch-norm's means and variances are those of the global batch.
    found = dict(jax.tree.leaves_with_path(state.model_state))
    assert len(found) == 20
    for path, leaf in jax.tree.leaves_with_path(expected.model_state):
        np.testing.assert_allclose(np.asarray(found[path]), np.asarray(leaf), rtol=1e-4, atol=1e-5)
    kernels = [leaf for leaf in jax.tree.leaves(state.params) if leaf.shape == (256, 256)]
    pieces = {shard.data.shape for leaf in kernels for shard in leaf.addressable_shards}
    assert pieces == ({(256, 32)} if shard_params else {(256, 256)})


def losses_in_float64(devices):
    """Returns the losses of three epochs.

    In float32, the last bit of one weight changes the loss of the third epoch by some percent, also on one
    device, so that losses could not be compared.
    """
    program = train.compile_program(CONFIG, devices)
    state = program.init(np.uint32(0), CONFIG.hparams())
    widen = lambda leaf: leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf
    state = jax.jit(partial(jax.tree.map, widen), out_shardings=devices.of_state(state))(state)
    run = train.fit(CONFIG, DATA, devices=devices, state=state, evaluate_every=3)
    return [record["train_loss"] for _, record in run]


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_three_epochs_on_8_devices_are_those_on_one():
    found, expected = losses_in_float64(all_devices()), losses_in_float64(one_device())
    assert expected[-1] < 0.5
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("size", "near"),
    [(100, "96 and 104"), (7, "8"), (1023, "1016 and 1024"), (1001, "1000 and 1008")],
)
@pytest.mark.usefixtures("eight_devices")
def test_a_batch_that_cannot_be_divided_is_refused_with_the_nearest_sizes(size, near, tmp_path, capsys):
    assert train.main(["--batch-size", str(size), "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert f"--batch-size {size} cannot be divided among 8 devices; {near} can\n" in said
    assert not (tmp_path / "run").exists()


def test_batch_sizes_above_the_number_of_images_are_not_proposed():
    with pytest.raises(UsageError, match=r"; 1016 can$"):
        all_devices().check_batch_size(1020, largest=1020)
    all_devices().check_batch_size(1016, largest=1020)


@pytest.mark.slow
@pytest.mark.usefixtures("eight_devices")
def test_a_run_with_sharded_parameters_resumes_with_replicated_ones(tmp_path):
    """Checkpoints do not depend on the number of devices."""
    command = ["--epochs", "2", "--batch-size", "1024", "--out", str(tmp_path / "run")]
    assert train.main([*command, "--shard-params"]) == 0
    assert train.main(["--resume", "--out", str(tmp_path / "run")]) == 0
