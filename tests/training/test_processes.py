"""Tests that two processes with two devices each compute what one device does, and one writes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from test_devices import losses_in_float64, one_device

import train
from training import processes
from training.config import UsageError

ROOT = Path(__file__).parents[2]


def start(number, arguments, address, **environment):
    """Starts Python as one of two processes."""
    environment = {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "2",
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": str(number),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests"), *sys.path]),
        **environment,
    }
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def start_two(*command):
    address = free_address()
    return [start(number, command, address) for number in range(2)]


def ends(started):
    """Returns exit codes, and the lines that each process prints, without those of the network library."""
    said = [process.communicate(timeout=300) for process in started]
    for _, err in said:
        print(err)
    # Gloo prints from several threads at once, so that its lines come in pieces.
    mine = lambda line: not any(piece in line for piece in ("[Gloo]", "peer ranks"))
    out = [[line for line in out.splitlines() if mine(line)] for out, _ in said]
    return [process.returncode for process in started], out


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_three_epochs_on_two_processes_equal_those_on_one_device():
    code = """
import jax
from training.processes import start_distributed
start_distributed({}, 60)
from training.parallel import all_devices
from test_devices import losses_in_float64
assert jax.device_count() == 4 and jax.local_device_count() == 2
with jax.enable_x64(True):
    print("losses", losses_in_float64(all_devices()))
"""
    codes, out = ends(start_two("-c", code))
    assert codes == [0, 0]
    expected = losses_in_float64(one_device())
    for lines in out:
        np.testing.assert_allclose(json.loads(lines[-1].removeprefix("losses ")), expected, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_one_process_writes_and_a_signal_to_either_ends_both(tmp_path):
    folder = tmp_path / "run"
    command = ["train.py", "--epochs", 200, "--batch-size", 1024, "--tensorboard", "--distributed", "--out"]
    started = start_two(*command, folder)
    while not (folder / "metrics.jsonl").exists() or not (folder / "metrics.jsonl").read_bytes():
        assert started[0].poll() is None
        time.sleep(0.05)
    started[1].send_signal(signal.SIGTERM)
    codes, out = ends(started)
    assert codes == [0, 0]
    assert "to go on: python train.py --resume" in out[0][-1]
    assert out[1] == []
    done = len((folder / "metrics.jsonl").read_text().splitlines())
    assert (folder / "checkpoint" / str(done)).is_dir()
    assert len(list((folder / "tensorboard").iterdir())) == 1
    # One process continues what two have written.
    assert train.main(["--resume", "--out", str(folder)]) == 0
    epochs = [json.loads(line)["epoch"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert epochs == list(range(1, 201))


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"JAX_NUM_PROCESSES": "2"}, "JAX_COORDINATOR_ADDRESS and JAX_PROCESS_ID is not"),
        ({"JAX_PROCESS_ID": "0", "JAX_COORDINATOR_ADDRESS": "x:1"}, "JAX_NUM_PROCESSES is not"),
        (
            {"JAX_PROCESS_ID": "0", "JAX_COORDINATOR_ADDRESS": "x:1", "JAX_NUM_PROCESSES": "two"},
            "JAX_NUM_PROCESSES must be a number, not 'two'",
        ),
        (
            {"JAX_PROCESS_ID": "2", "JAX_COORDINATOR_ADDRESS": "x:1", "JAX_NUM_PROCESSES": "2"},
            "JAX_PROCESS_ID must be below the 2 processes, not 2",
        ),
        (
            {"JAX_PROCESS_ID": "0", "JAX_COORDINATOR_ADDRESS": "x", "JAX_NUM_PROCESSES": "2"},
            "JAX_COORDINATOR_ADDRESS must be host:port, not 'x'",
        ),
        ({}, "jax finds no cluster here. Set JAX_COORDINATOR_ADDRESS"),
    ],
)
def test_an_incomplete_environment_is_refused(environment, message, monkeypatch):
    for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=message):
        processes.start_distributed({}, 1)


def test_a_single_process_is_the_primary_one():
    assert processes.is_primary()
    assert [processes.any_process(flag) for flag in (True, False)] == [True, False]
    with pytest.raises(ZeroDivisionError):
        processes.on_primary(lambda: 1 / 0)
