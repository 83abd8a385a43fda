"""Tests that both of two processes end soon if one fails, with one sentence each and intact states."""

import json
import signal
import time

import pytest
from test_processes import free_address, start

import train

COMMAND = ["train.py", "--epochs", 4, "--batch-size", 512, "--distributed", "--out"]


def fault(tmp_path, more=((), ()), environments=({}, {}), wait=25):
    """Returns exit codes, the error of each process, and the seconds between the first and the last end."""
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


def two_at_work(folder, epochs, until):
    """Starts two processes, and waits until a file or folder of their run is there and not empty."""
    address, path = free_address(), folder / until
    command = ["train.py", "--epochs", epochs, "--batch-size", 1024, "--distributed", "--out", folder]
    started = [start(place, command, address) for place in range(2)]
    while not (path.exists() and path.stat().st_size):
        assert [process.poll() for process in started] == [None, None]
        time.sleep(0.1)
    return started


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
def test_if_the_first_process_refuses_the_folder_both_end(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("mine")
    codes, said, seconds = fault(tmp_path)
    assert codes == [2, 1]
    assert "holds files that are no run" in said[0]
    assert said[1] == f"process 0 ended: {said[0]}"
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]
    assert seconds < 30


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(
    ("flags", "printed", "told"),
    [
        (
            ["--alpha", 7],
            "--alpha must be between -1 and 1, not 7.0",
            "--alpha must be between -1 and 1, not 7.0",
        ),
        (["--alhpa", 0.5], "", "its command line is not valid"),  # tyro prints a box
    ],
)
def test_a_bad_flag_on_one_ends_the_other_at_once(flags, printed, told, number, tmp_path):
    more = ([], flags) if number else (flags, [])
    codes, said, seconds = fault(tmp_path, more, wait=300)
    assert (codes[number], said[number]) == (2, printed)
    assert (codes[1 - number], said[1 - number]) == (1, f"process {number} ended: {told}")
    assert not (tmp_path / "run").exists()
    assert seconds < 30


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (0, "process 1 did not start within 2 s; --start-timeout SECONDS waits longer"),
        (1, "process 0 was not found at 127.0.0.1:"),
    ],
)
def test_a_process_that_never_starts_is_named(number, sentence, tmp_path):
    command = [*COMMAND, tmp_path / "run", "--start-timeout", 2]
    codes, said, _ = outcome([start(number, command, free_address())])
    assert codes == [1]
    assert sentence in said[0]


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_when_one_is_stopped_the_other_ends(number, tmp_path):
    """A process that is swapped out or whose machine is lost looks the same. Once continued, it ends too."""
    started = two_at_work(tmp_path / "run", 1000, until="metrics.jsonl")
    started[number].send_signal(signal.SIGSTOP)
    stopped = time.monotonic()
    assert started[1 - number].wait(60) == 1
    assert time.monotonic() - stopped < 30
    started[number].send_signal(signal.SIGCONT)
    codes, said, _ = outcome(started)
    lost = f"process {number} has given no sign of life for 20 s"
    assert codes == [1, 1]
    assert said == [lost, lost]


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
def test_if_the_second_process_fails_both_end(name, codes, sentences, tmp_path):
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
    folder = tmp_path / "run"
    started = two_at_work(folder, 100, until="checkpoint/10")
    started[number].kill()
    codes, said, seconds = outcome(started)
    assert codes[number] == -signal.SIGKILL
    assert (codes[1 - number], said[1 - number]) == (1, f"process {number} ended without a word")
    assert seconds < 30
    assert train.main(["--resume", "--out", str(folder)]) == 0
    epochs = [json.loads(line)["epoch"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert epochs == list(range(1, 101))
