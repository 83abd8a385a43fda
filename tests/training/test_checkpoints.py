"""Tests saved states: the last three, with damaged files and on a full disk."""

import asyncio
import errno
import gc
import os
import shutil
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from data.writing import FileError
from train import TrainState
from training.checkpoints import Checkpoints
from training.config import Flags, UsageError
from training.page import write_page
from training.report import plot_rotation
from training.run import Session
from training.run_folder import RunFolder

CONFIG = Flags(epochs=10).resolved()


def state_after(epoch, width=3):
    params = {"a": jnp.full((2, width), 1.0 + epoch), "b": jnp.arange(4, dtype=jnp.bfloat16) + epoch}
    model_state = {"dropout": jax.random.key(epoch), "mean": jnp.zeros(2, jnp.float16)}
    moments = optax.ScaleByAdamState(jnp.int32(epoch), params, params)
    return TrainState(jnp.int32(epoch), params, model_state, (optax.EmptyState(), moments))


def like(state):
    place = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    return jax.tree.map(place, state)


def bits(state):
    is_key = lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    plain = [jax.random.key_data(leaf) if is_key(leaf) else leaf for leaf in jax.tree.leaves(state)]
    return [np.asarray(leaf).tobytes() for leaf in plain]


def record(epoch, loss=1.0):
    return {
        "epoch": epoch,
        "train_loss": loss,
        "train_accuracy": 0.5,
        "test_accuracy": 0.5,
        "seconds": 0.0,
        "rotation": {"a": 0.1},
        "skipped": {},
    }


@contextmanager
def resumed(path):
    with Session(CONFIG, RunFolder(path)) as session:
        state = session.restore(like(state_after(0)))
        yield session, state


@pytest.fixture(scope="module")
def run_of_five(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    with resumed(path) as (session, state):
        assert state is None
        for epoch in range(1, 6):
            session.log_and_checkpoint(state_after(epoch), record(epoch))
    return path


@pytest.fixture
def run(run_of_five, tmp_path):
    shutil.copytree(run_of_five, tmp_path / "run")
    return tmp_path / "run"


def checkpoints(path):
    return sorted(int(entry.name) for entry in (path / "checkpoint").iterdir())


def contents(path):
    kept = [file for file in sorted(path.rglob("*")) if file.name not in (".lock", ".pid")]
    return {file: file.read_bytes() for file in kept if file.is_file()}


def test_the_last_three_states_are_kept_and_restored_bit_for_bit(run):
    assert checkpoints(run) == [3, 4, 5]
    with resumed(run) as (session, state):
        assert [one["epoch"] for one in session.records] == [1, 2, 3, 4, 5]
    assert jax.tree.structure(state) == jax.tree.structure(state_after(5))
    assert bits(state) == bits(state_after(5))


def test_later_steps_do_not_change_a_state_that_is_being_written(tmp_path):
    step = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), donate_argnums=0)
    state = step({"w": jnp.zeros((1000, 1000)), "n": jnp.zeros((), jnp.int32)})
    shapes = like(state)
    with Checkpoints(tmp_path / "checkpoint") as kept:
        for epoch in (1, 2, 3):
            kept.save(epoch, state)
            for _ in range(5):
                state = step(state)
    with Checkpoints(tmp_path / "checkpoint") as kept:
        for epoch in (1, 2, 3):
            restored = kept.restore(epoch, shapes)
            np.testing.assert_array_equal(np.unique(restored["w"]), [5 * epoch - 4])


def largest(path):
    return max((file for file in path.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)


def flip_a_bit(path):
    # Changes an entry of "a", which is 6 after epoch 5.
    for file in path.rglob("d/*"):
        found = file.read_bytes()
        at = found.find(np.full(2, 6.0, np.float32).tobytes())
        if at >= 0:
            file.write_bytes(found[:at] + b"\x01" + found[at + 1 :])
            return
    largest(path).write_bytes(b"\0" * largest(path).stat().st_size)


DAMAGES = {
    "truncated": lambda path: os.truncate(largest(path), largest(path).stat().st_size // 2),
    "a changed bit": flip_a_bit,
    "emptied files": lambda path: [os.truncate(file, 0) for file in path.rglob("*") if file.is_file()],
    "no metadata": lambda path: (path / "default" / "_METADATA").unlink(),
    "no arrays": lambda path: [shutil.rmtree(folder) for folder in list(path.rglob("d"))],
    "nothing": lambda path: [shutil.rmtree(path), path.mkdir()],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(damage, run, capsys):
    damage(run / "checkpoint" / "5")
    left = contents(run / "checkpoint" / "5")
    with resumed(run) as (session, state):
        assert bits(state) == bits(state_after(4))
        assert [one["epoch"] for one in session.records] == [1, 2, 3, 4]
        said = capsys.readouterr().err
        assert f"checkpoint {run / 'checkpoint' / '5'} is damaged" in said
        assert f"{run / 'damaged-checkpoint-5'}; going on from epoch 4" in said
        session.log_and_checkpoint(state_after(5), record(5))
    aside = contents(run / "damaged-checkpoint-5")
    assert list(aside.values()) == list(left.values())
    assert checkpoints(run) == [3, 4, 5]
    with resumed(run) as (_, state):
        assert bits(state) == bits(state_after(5))


def test_if_all_checkpoints_are_damaged_the_run_is_refused_and_nothing_is_moved(run):
    for epoch in (3, 4, 5):
        DAMAGES["no metadata"](run / "checkpoint" / str(epoch))
    before = contents(run)
    with pytest.raises(FileError, match=r"checkpoint/5 is damaged.*/3 is damaged.*--overwrite"), resumed(run):
        pass
    assert contents(run) == before


def test_the_state_of_another_network_is_refused_and_the_message_names_the_leaves(run):
    before = contents(run)
    session = Session(CONFIG, RunFolder(run))
    with (
        session,
        pytest.raises(UsageError, match=r"another network: params/a is \(2, 3\) float32, should") as e,
    ):
        session.restore(like(state_after(0, width=4)))
    assert "should be (2, 4) float32" in str(e.value)
    wider = state_after(0)._replace(model_state={"extra": jnp.zeros(2)})
    with session, pytest.raises(UsageError, match=r"model_state/extra is missing, should be \(2,\)"):
        session.restore(like(wider))
    assert contents(run) == before


def test_a_state_that_is_not_finite_is_not_saved(tmp_path, capsys):
    nan = state_after(0)._replace(params={"a": jnp.full((2, 3), jnp.nan), "b": state_after(0).params["b"]})
    with resumed(tmp_path / "run") as (session, _):
        for epoch in (1, 2):
            session.log_and_checkpoint(state_after(epoch), record(epoch))
        session.log_and_checkpoint(nan, record(3))
        for epoch in (4, 5, 6):
            session.log_and_checkpoint(nan, record(epoch, loss=None))
        session.close("the training loss was not finite for 3 epochs")
    assert checkpoints(tmp_path / "run") == [1, 2]
    said = capsys.readouterr().out
    assert "ended after epoch 6: the training loss was not finite for 3 epochs" in said
    assert "not saved; the last good one is that after epoch 2" in said
    with resumed(tmp_path / "run") as (session, state):
        assert bits(state) == bits(state_after(2))
        assert len(session.records) == 2


def test_a_run_continues_from_the_last_epoch_that_has_metrics(run):
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:4]) + lines[4][:20])
    with resumed(run) as (session, state):
        assert bits(state) == bits(state_after(4))
        session.log_and_checkpoint(state_after(5), record(5))
    assert len(RunFolder(run).read_metrics()) == 5


def test_damaged_metrics_are_named(run):
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text(lines[0] + "\x00\x00\n" + lines[2])
    with pytest.raises(FileError, match=r"metrics\.jsonl is damaged: line 2"), resumed(run):
        pass


def test_two_runs_cannot_share_a_folder(run):
    before = contents(run)
    with (
        resumed(run),
        pytest.raises(UsageError, match=rf"another run is writing there \(process {os.getpid()}\)"),
    ):
        Session(CONFIG, RunFolder(run), overwrite=True).__enter__()
    assert contents(run) == before
    with resumed(run) as (_, state):
        assert bits(state) == bits(state_after(5))


def no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_under_the_metrics(run, monkeypatch):
    before = contents(run)
    with resumed(run) as (session, _):
        monkeypatch.setattr("training.run_folder.json.dumps", no_space)
        with pytest.raises(FileError, match=r"metrics\.jsonl could not be written: No space left"):
            session.log_and_checkpoint(state_after(6), record(6))
    assert contents(run) == before


def test_a_full_disk_under_a_checkpoint(run, monkeypatch):
    def one_more():
        with resumed(run) as (session, _):
            monkeypatch.setattr("orbax.checkpoint.CheckpointManager.wait_until_finished", no_space)
            session.log_and_checkpoint(state_after(6), record(6))

    with pytest.raises(FileError, match=r"a checkpoint in .*could not be written.*No space left"):
        one_more()
    monkeypatch.undo()
    shutil.rmtree(run / "checkpoint" / "6", ignore_errors=True)
    with resumed(run) as (_, state):
        assert bits(state) == bits(state_after(5))


def test_a_task_that_fails_to_write_prints_no_traceback(tmp_path, caplog):
    async def write():
        raise OSError(errno.ENOSPC, "No space left on device")

    async def forget_the_task():
        asyncio.ensure_future(write())  # noqa: RUF006
        await asyncio.sleep(0)

    with Checkpoints(tmp_path):
        asyncio.run(forget_the_task())
        gc.collect()
    assert caplog.records == []


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("config.json", lambda folder: folder.prepare(CONFIG, overwrite=True)),
        ("metrics.jsonl", lambda folder: folder.keep_metrics(3)),
        ("rotation.png", lambda folder: plot_rotation("run", [record(1)], folder.rotation_plot)),
        ("report.html", lambda folder: write_page(CONFIG, [record(1)], None, folder.report)),
    ],
)
def test_a_full_disk_leaves_the_earlier_file_as_it_was(name, write, run, monkeypatch):
    for drawn in ("rotation.png", "report.html"):
        (run / drawn).write_bytes(b"earlier")
    before = (run / name).read_bytes()
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", no_space)
    monkeypatch.setattr("pathlib.Path.write_text", no_space)
    with pytest.raises(FileError, match=rf"{name} could not be written: No space left"):
        write(RunFolder(run))
    assert (run / name).read_bytes() == before
    assert not list(run.glob("*.part"))
