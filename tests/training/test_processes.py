"""Two processes with two devices each do what one device does; one of them writes and prints."""

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
    """`python`, as one of two processes; by default `train.py`."""
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
    """Exit codes, and what each process prints, without what the network library says."""
    said = [process.communicate(timeout=300) for process in started]
    for _, err in said:
        print(err)
    # Gloo prints from several threads at once, so that its lines come in pieces.
    mine = lambda line: not any(piece in line for piece in ("[Gloo]", "peer ranks"))
    out = [[line for line in out.splitlines() if mine(line)] for out, _ in said]
    return [process.returncode for process in started], out


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_three_epochs_on_two_processes_are_those_on_one_device():
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
    # What several processes have written, one continues.
    assert train.main(["--resume", "--out", str(folder)]) == 0
    epochs = [json.loads(line)["epoch"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert epochs == list(range(1, 201))


COMMAND = ["train.py", "--epochs", 4, "--batch-size", 512, "--distributed", "--out"]


def fault(tmp_path, more=((), ()), environments=({}, {}), wait=25):
    """Exit codes, what each process says, and the seconds between the first and the last end."""
    address = free_address()
    out = [tmp_path / "run" if "--out" not in map(str, extra) else () for extra in more]
    started = [
        start(
            number,
            [*COMMAND[:-1], *(["--out", path] if path else []), "--start-timeout", wait, *extra],
            address,
            **own,
        )
        for number, (path, extra, own) in enumerate(zip(out, more, environments, strict=True))
    ]
    return outcome(started)


def outcome(started):
    ended = {}
    while len(ended) < len(started):
        for number, process in enumerate(started):
            if number not in ended and process.poll() is not None:
                ended[number] = time.monotonic()
        time.sleep(0.1)
    errors = [process.communicate()[1] for process in started]
    print(*errors, sep="\n---\n")
    said = [[line for line in error.splitlines() if line.startswith("train.py: error")] for error in errors]
    assert not any("Traceback" in error or "*** Check failure" in error for error in errors)
    assert [len(lines) for lines in said if lines] == [1] * sum(map(bool, said))
    said = ["".join(lines).removeprefix("train.py: error: ") for lines in said]
    return [process.returncode for process in started], said, max(ended.values()) - min(ended.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "difference"),
    [
        ((["--learning-rate", 0.3], []), "--learning-rate: 0.3 on process 0, 0.037037037037037035 on 1"),
        (([], ["--out", "/tmp/elsewhere"]), "--out: "),
    ],
)
def test_settings_that_differ_end_all_before_the_first_step(more, difference, tmp_path):
    codes, said, seconds = fault(tmp_path, more)
    assert codes == [2, 2]
    assert all(f"--distributed: the processes differ in {difference}" in sentence for sentence in said)
    assert not (tmp_path / "run").exists()
    assert seconds < 30


@pytest.mark.slow
def test_what_the_first_process_refuses_ends_both(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("mine")
    codes, said, seconds = fault(tmp_path)
    assert codes == [2, 1]
    assert "holds files that are no run" in said[0]
    assert said[1] == f"process 0 ended: {said[0]}"
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]
    assert seconds < 30


@pytest.mark.slow
def test_a_bad_flag_on_one_and_a_process_that_never_starts(tmp_path):
    codes, said, seconds = fault(tmp_path, ([], ["--alpha", 7]), wait=8)
    assert codes == [1, 2]
    assert said == [
        "process 1 did not start within 8 s; --start-timeout SECONDS waits longer",
        "--alpha must be between -1 and 1, not 7.0",
    ]
    assert seconds < 30
    codes, said, _ = outcome([start(1, [*COMMAND, tmp_path / "run", "--start-timeout", 2], free_address())])
    assert codes == [1]
    assert "process 0 was not found at 127.0.0.1:" in said[0]


RUNNER = """
import runpy, sys
import data.mnist5k, train
{fault}
sys.exit(train.main())
"""
FAULTS = {
    "data that differ": """
load = data.mnist5k.load
def other(*arguments):
    found = load(*arguments)
    return found._replace(test_labels=found.test_labels[::-1])
data.mnist5k.load = other
""",
    "data that are damaged": """
from data import DataError
def damaged(*arguments):
    raise DataError("arrays.npz is damaged")
data.mnist5k.load = damaged
""",
    "a disk that is not shared": """
from training.run_folder import RunFolder
RunFolder.holder = lambda self: None
""",
    "a full disk": """
from data.writing import FileError
from training.report import Progress
def show(self, record):
    raise FileError("no space")
Progress.show = show
""",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "codes", "sentences"),
    [
        ("data that differ", [2, 2], ["the processes differ in the data, by their sha256: "] * 2),
        (
            "data that are damaged",
            [1, 2],
            ["process 1 ended: arrays.npz is damaged", "arrays.npz is damaged"],
        ),
        ("a disk that is not shared", [2, 2], ["the processes differ in the folder --out"] * 2),
        ("a full disk", [1, 1], ["process 1 ended: no space", "no space"]),
    ],
)
def test_a_fault_of_the_second_process_ends_both(name, codes, sentences, tmp_path):
    address = free_address()
    command = [*COMMAND[1:], tmp_path / "run"]
    started = [
        start(0, ["train.py", *command], address),
        start(1, ["-c", RUNNER.format(fault=FAULTS[name]), *command], address),
    ]
    found, said, seconds = outcome(started)
    assert found == codes
    assert all(expected in sentence for expected, sentence in zip(sentences, said, strict=True))
    assert seconds < 30


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_when_one_is_killed_the_other_ends_and_the_state_is_whole(number, tmp_path):
    address, folder = free_address(), tmp_path / "run"
    command = ["train.py", "--epochs", 100, "--batch-size", 1024, "--distributed", "--out", folder]
    started = [start(place, command, address) for place in range(2)]
    while not (folder / "checkpoint" / "10").is_dir():
        assert [process.poll() for process in started] == [None, None]
        time.sleep(0.1)
    started[number].kill()
    codes, said, seconds = outcome(started)
    assert codes[number] == -signal.SIGKILL
    assert (codes[1 - number], said[1 - number]) == (1, f"process {number} ended without a word")
    assert seconds < 30
    assert train.main(["--resume", "--out", str(folder)]) == 0
    epochs = [json.loads(line)["epoch"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert epochs == list(range(1, 101))


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
def test_an_environment_that_names_no_others_is_refused(environment, message, monkeypatch):
    for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=message):
        processes.start_distributed({}, 1)


def test_alone_a_process_is_the_first_and_asks_nobody():
    assert processes.is_primary()
    assert [processes.any_process(flag) for flag in (True, False)] == [True, False]
    with pytest.raises(ZeroDivisionError):
        processes.on_primary(lambda: 1 / 0)
