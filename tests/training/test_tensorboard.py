"""Tests that TensorBoard's event files agree with metrics.jsonl, also after a run was resumed."""

import errno
import json
import math
import shutil
import struct

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

import train
from data.writing import FileError
from training.config import Flags
from training.report import TensorBoard
from training.run import Session
from training.run_folder import RunFolder

SHORT = ["--epochs", "2", "--batch-size", "512"]


def command(*arguments):
    return train.main([str(argument) for argument in arguments])


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def events(folder):
    """Reads an event file, whose records are length (8 bytes), its checksum (4), event, its checksum (4)."""
    (file,) = (folder / "tensorboard").glob("events.out.tfevents.*")
    data, found = file.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        found.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found


def scalars(folder):
    """Returns epochs and their values by tag, in the order in which they were written."""
    steps = [event for event in events(folder) if event.HasField("summary")]
    return [(event.step, {v.tag: v.simple_value for v in event.summary.value}) for event in steps]


def expected(record):
    names = ["train_loss", "train_accuracy", "test_accuracy"]
    values = {name: record[name] for name in names} | {"skipped": sum(record["skipped"].values())}
    values |= {f"rotation/{layer}": distance for layer, distance in record["rotation"].items()}
    return record["epoch"], {tag: pytest.approx(np.float32(value)) for tag, value in values.items()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert command(*SHORT, "--tensorboard", "--out", folder) == 0
    return folder


def test_every_epoch_has_the_scalars_of_its_record(finished):
    assert scalars(finished) == [expected(record) for record in records(finished)]
    version, started, *epochs = events(finished)
    assert version.file_version == "brain.Event:2"
    # With this event at step 0, TensorBoard forgets what it read before.
    assert (started.session_log.status, started.step) == (SessionLog.START, 0)
    assert epochs[0].wall_time < epochs[1].wall_time


@pytest.mark.parametrize("before", ["there", "absent"])
def test_after_resuming_every_epoch_is_there_once(before, finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    shutil.rmtree(folder / "checkpoint" / "2")
    if before == "there":  # resuming keeps the flags of the run
        assert command("--resume", "--out", folder) == 0
    else:
        shutil.rmtree(folder / "tensorboard")
        assert command("--resume", "--tensorboard", "--out", folder) == 0
    assert scalars(folder) == [expected(record) for record in records(folder)]


def test_overwriting_without_the_flag_removes_the_folder(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    assert command(*SHORT, "--overwrite", "--out", folder) == 0
    assert (folder / "metrics.jsonl").exists()
    assert not (folder / "tensorboard").exists()


def record(epoch, **changes):
    accuracies = {"train_accuracy": 0.5, "test_accuracy": 0.25, "validation_accuracy": 0.75}
    plain = {"epoch": epoch, "train_loss": 1.0, **accuracies, "seconds": 10.0, "rotation": {"a/kernel": 0.1}}
    return {**plain, "skipped": {}, **changes}


def test_values_that_are_not_finite_are_nan_and_missing_values_are_left_out(tmp_path):
    spoiled = record(2, train_loss=None, rotation={"a/kernel": None}, skipped={"a/kernel": 2, "b/kernel": 3})
    unseen = record(3, test_accuracy=None, validation_accuracy=None)
    writer = TensorBoard(tmp_path / "tensorboard")
    writer.add([record(1), spoiled, unseen])
    writer.close()
    (_, first), (_, second), (_, third) = scalars(tmp_path)
    assert first["validation_accuracy"] == 0.75
    assert math.isnan(second["train_loss"])
    assert math.isnan(second["rotation/a/kernel"])
    assert second["skipped"] == 5
    assert first.keys() - third.keys() == {"test_accuracy", "validation_accuracy"}
    # The times of earlier epochs differ by their durations.
    times = [event.wall_time for event in events(tmp_path)[2:]]
    np.testing.assert_allclose(np.diff(times), [10.0, 10.0])


def test_on_a_full_disk_the_error_names_the_folder(tmp_path, monkeypatch, capsys):
    def no_space(self):
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("tensorboardX.RecordWriter.flush", no_space)
        assert command(*SHORT, "--tensorboard", "--out", folder) == 1
    assert f"{folder / 'tensorboard'} could not be written: No space left" in capsys.readouterr().err
    assert command("--resume", "--out", folder) == 0
    assert scalars(folder) == [expected(record) for record in records(folder)]
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="file could not be written"):
        TensorBoard(tmp_path / "file")


def test_only_the_primary_process_writes(tmp_path, monkeypatch):
    for module in ("processes", "run"):
        monkeypatch.setattr(f"training.{module}.is_primary", lambda: False)
    with Session(Flags(epochs=30).resolved(), RunFolder(tmp_path / "run", with_tensorboard=True)) as session:
        session.restore({})
        session.log_and_checkpoint({}, record(1))
    assert not (tmp_path / "run" / "tensorboard").exists()
