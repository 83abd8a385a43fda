"""SIGTERM and Ctrl-C end a run after the epoch, with its state saved."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest
from command import SHORT

import train
from training.report import Progress
from training.run import Interruption


def records(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{**json.loads(line), "seconds": None} for line in lines]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert train.main([*SHORT, "--out", str(folder)]) == 0
    return records(folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_ends_after_the_epoch_and_says_how_to_continue(
    number, tmp_path, uninterrupted, monkeypatch, capsys
):
    folder = tmp_path / "my run"
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "show", lambda self, record: os.kill(os.getpid(), number))
        assert train.main([*SHORT, "--out", str(folder)]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == (
        f"ended by {number.name} after epoch 1 of 2, saved after epoch 1; to go on:"
        f" python train.py --resume --out '{folder}'"
    )
    assert f"{number.name}: ends after this epoch" in said.err
    assert records(folder) == uninterrupted[:1]
    assert train.main(["--resume", "--out", str(folder)]) == 0
    assert records(folder) == uninterrupted


def test_a_run_that_is_asked_to_end_in_its_last_epoch_ends_as_always(
    tmp_path, uninterrupted, monkeypatch, capsys
):
    asked = lambda self, record: record["epoch"] == 2 and os.kill(os.getpid(), signal.SIGTERM)
    monkeypatch.setattr(Progress, "show", asked)
    assert train.main([*SHORT, "--out", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("test accuracy")
    assert records(tmp_path / "run") == uninterrupted


def test_a_second_ctrl_c_aborts_at_once():
    code = """
import os, signal, time
from training.run import Interruption
with Interruption() as interruption:
    os.kill(os.getpid(), signal.SIGINT)
    assert interruption.signal_name == "SIGINT"
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
"""
    ended = subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    assert ended.returncode == -signal.SIGINT


def test_handlers_are_put_back_and_other_threads_do_without():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Interruption():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    found = []

    def elsewhere():
        with Interruption() as interruption:
            found.append(interruption.signal_name)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [None]
