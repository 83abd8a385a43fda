"""Tests runs that continue with another data folder or more epochs, file systems without locks, odd paths."""

import errno
import fcntl
import json
import os
import shutil

import pytest
from command import SHORT, command

import train
from training.config import Flags, UsageError
from training.run_folder import RunFolder


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_clock(folder):
    return [{**record, "seconds": 0} for record in records(folder)]


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.slow
def test_a_run_continues_with_its_data_in_another_folder(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    assert command(*SHORT, "--data-dir", "a", "--out", "run") == 0
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert (
        command("--resume", "--out", tmp_path / "run") == 0
    )  # a relative path belongs to the folder the run was started in
    (tmp_path / "a").rename(tmp_path / "b")
    assert command("--resume", "--data-dir", "../b", "--out", tmp_path / "run") == 0
    assert command("--resume", "--out", tmp_path / "run") == 0
    assert RunFolder(tmp_path / "run").read_config().data_dir == str(tmp_path / "b")


def test_a_run_whose_data_moved_asks_for_the_new_folder(run, capsys):
    config = RunFolder(run).read_config()
    (run / "config.json").write_text(json.dumps({**vars(config), "data_dir": "/moved"}))
    assert command("--resume", "--out", run) == 2
    assert "--data-dir /moved is not a folder, where the data of this run were" in capsys.readouterr().err


def test_a_run_of_the_previous_version_resumes(run, finished):
    """Its config.json has no `schedule_epochs`."""
    assert "schedule_epochs" not in json.loads((run / "config.json").read_text())
    shutil.rmtree(run / "checkpoint" / "2")
    assert command("--resume", "--out", run) == 0
    assert without_clock(run) == without_clock(finished)


def test_more_epochs_keep_the_schedule_or_are_refused(run, capsys):
    """Trains four epochs; the last two keep the learning rate that the first two ended with."""
    before = (run / "config.json").read_text()
    assert command("--resume", "--epochs", 4, "--out", run) == 2
    assert "from epochs 1 and 1 to 3 and 3; --keep-schedule leaves them" in capsys.readouterr().err
    assert (run / "config.json").read_text() == before
    assert command("--resume", "--epochs", 4, "--keep-schedule", "--out", run) == 0
    config = RunFolder(run).read_config()
    assert (config.epochs, config.schedule_epochs, config.schedule().drops) == (4, 2, (1, 1))
    assert [record.get("schedule_epochs") for record in records(run)] == [None, None, 2, 2]
    assert "epochs 3 to 4" in (run / "report.html").read_text()
    # The same as four epochs at once; and the flag is not needed again.
    data = train.TASKS[config.task].load(seed=0)
    *_, (_, last) = train.fit(config, data)
    assert {**last, "seconds": 0} == without_clock(run)[-1]
    assert command("--resume", "--out", run) == 0
    assert command("--resume", "--epochs", 3, "--out", run) == 2
    assert "--epochs was 4, is 3" in capsys.readouterr().err


def test_with_a_constant_rate_more_epochs_need_no_flag():
    started = Flags(task="mnist-mlp", epochs=10).resolved()
    more = Flags(task="mnist-mlp", epochs=20, resume=True, out=".").resolved(started)
    assert more.schedule_epochs is None
    assert more.differences(started) == []
    with pytest.raises(UsageError, match="goes with --resume"):
        Flags(keep_schedule=True).resolved()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_a_marker_file_keeps_other_runs_away(code, tmp_path, monkeypatch, capsys):
    def refuse(descriptor, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    folder = RunFolder(tmp_path / "run")
    with folder.locked():
        assert "has no locks; .lock-marker keeps other runs away" in capsys.readouterr().err
        with pytest.raises(UsageError, match=f"another run is writing there .process {os.getpid()}"):
            RunFolder(tmp_path / "run").locked().__enter__()
    assert not (tmp_path / "run" / ".lock-marker").exists()
    config = Flags().resolved()
    with folder.locked():
        folder.refuse_unless_free(config, resume=False, overwrite=False)


@pytest.mark.parametrize("name", ["caf\udce9", "\ud800"])
def test_paths_that_are_not_utf_8_are_refused_at_once(name, tmp_path, capsys):
    assert command("--out", tmp_path / name) == 2
    assert command("--data-dir", tmp_path / name, "--out", tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert said.count("is not UTF-8, which checkpoints and datasets need") == 2
    assert not list(tmp_path.iterdir())


def test_a_locale_that_is_not_utf_8_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "fsencode", lambda path: str(path).encode("latin-1"))
    assert command("--out", tmp_path / "é") == 2
    assert "set LC_ALL to a UTF-8 locale" in capsys.readouterr().err
