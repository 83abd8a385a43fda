"""Tests that SIGTERM, SIGHUP and Ctrl-C end a run after the epoch, with its state saved."""

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


@pytest.fixture
def uninterrupted(finished):
    return records(finished)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
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


def test_a_signal_in_the_last_epoch_changes_nothing(tmp_path, uninterrupted, monkeypatch, capsys):
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


@pytest.mark.slow
def test_a_second_ctrl_c_at_a_prompt_raises_and_keeps_the_variables():
    code = """
import os, signal, time
from training.run import Interruption
before = signal.signal(signal.SIGINT, signal.default_int_handler)

def run():
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)

weights = 42
run()
print("kept", weights)
"""
    ended = subprocess.run([sys.executable, "-i", "-q"], input=code, capture_output=True, text=True)
    assert "SIGHUP: ends after this epoch; Ctrl-C interrupts it" in ended.stderr
    assert "KeyboardInterrupt" in ended.stderr
    assert "kept 42" in ended.stdout


@pytest.mark.slow
def test_a_run_is_saved_after_its_terminal_was_lost(tmp_path):
    code = """
import sys, time
from pathlib import Path
from training.run import Interruption
with Interruption() as interruption:
    print("begun", flush=True)
    while interruption.signal_name is None:
        time.sleep(0.01)
    print("progress", flush=True)
    print("progress", file=sys.stderr, flush=True)
    Path(sys.argv[1]).write_text(interruption.signal_name)
"""
    # In a separate process: this one has threads of jax and must not fork.
    connection = """
import os, pty, sys
process, terminal = pty.fork()
if process == 0:
    os.execv(sys.executable, [sys.executable, "-c", *sys.argv[1:]])
while b"begun" not in os.read(terminal, 1000):
    pass
os.close(terminal)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
"""
    subprocess.run([sys.executable, "-c", connection, code, str(tmp_path / "saved")], check=True, timeout=120)
    assert (tmp_path / "saved").read_text() == "SIGHUP"


def test_under_nohup_sighup_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGHUP)
            assert interruption.signal_name is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_handlers_are_restored_and_other_threads_set_none():
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
