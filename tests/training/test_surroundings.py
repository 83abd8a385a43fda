"""Tests that faults of shell, disk and terminal end `python train.py` with one sentence and no traceback."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import SHORT, command

ROOT = Path(__file__).parents[2]


def program(*arguments, first="", **environment):
    """Starts `python train.py` in a separate process, which first runs a line of Python."""
    code = f"import resource, runpy, signal, sys\n{first}\nrunpy.run_path('train.py', run_name='__main__')"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_narrow_terminal_shows_the_help(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "1")
    assert command("--help") == 0
    assert "--learning-rate" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["--describe"]])
def test_standard_output_on_a_full_disk_is_reported(arguments, monkeypatch, capfd):
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert command(*arguments) == 1
        monkeypatch.undo()
    said = capfd.readouterr().err.splitlines()
    assert said == ["train.py: error: standard output could not be written: No space left on device"]


def test_a_closed_pipe_is_reported(monkeypatch, capfd):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as broken:
        monkeypatch.setattr(sys, "stdout", broken)
        assert command("--describe") == 1
        monkeypatch.undo()
    said = capfd.readouterr().err.splitlines()
    assert said == ["train.py: error: standard output could not be written: Broken pipe"]


@pytest.mark.slow
def test_an_unknown_backend_of_matplotlib_is_reported():
    ended = program("--help", MPLBACKEND="fancy")
    out, err = ended.communicate()
    assert (ended.returncode, out, err) == (1, "", "error: MPLBACKEND=fancy is unknown to matplotlib\n")


@pytest.mark.slow
def test_ctrl_c_while_modules_are_imported():
    # A shell ignores Ctrl-C for programs in the background.
    own = "signal.signal(signal.SIGINT, signal.default_int_handler)\nprint('begun', flush=True)"
    started = program("--help", first=own)
    assert started.stdout.readline() == "begun\n"
    time.sleep(0.3)
    started.send_signal(signal.SIGINT)
    assert started.communicate() == ("", "")
    assert started.returncode == -signal.SIGINT


@pytest.mark.slow
def test_a_limit_of_file_size_ends_in_one_sentence(tmp_path):
    """Imitates a full disk: the metrics fit, the checkpoint does not."""
    small = "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))"
    ended = program(*SHORT, "--out", tmp_path / "run", first=small, JAX_ENABLE_COMPILATION_CACHE="0")
    out, err = ended.communicate()
    assert err.splitlines() == [
        f"train.py: error: a checkpoint in {tmp_path}/run/checkpoint could not be written: File too large"
    ]
    assert ended.returncode == 1
    assert "epoch 1/2" in out
    assert command("--resume", "--out", tmp_path / "run") == 0


@pytest.mark.slow
def test_a_low_limit_of_open_files_shows_no_traceback(tmp_path):
    few = "resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))"
    ended = program(*SHORT, "--out", tmp_path / "run", first=few)
    _, err = ended.communicate()
    assert "Traceback" not in err
    assert ended.returncode in (0, 1)


def test_a_folder_with_the_name_of_the_plot_is_reported_before_training(finished, tmp_path, capsys):
    (tmp_path / "run" / "rotation.png").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text((finished / "config.json").read_text())
    assert command("--resume", "--out", tmp_path / "run") == 2
    assert "rotation.png is a folder, where a run writes a file" in capsys.readouterr().err
