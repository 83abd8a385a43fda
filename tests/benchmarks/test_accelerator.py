"""Tests that the benchmark on an accelerator continues, keeps to its minutes and says what failed."""

import json
import signal
import sys

import numpy as np
import oracle
import pytest

from benchmarks import accelerator, on_device
from benchmarks.accelerator import Flags, Records, commands, compared, report, run, side_by_side
from experiments import first
from experiments.runs import config_key


def units(*names):
    def measured(name):
        if name == "large":
            raise MemoryError("out of memory\nand more")
        return {"ms": 1.0}

    return lambda smoke: [(name, lambda name=name: measured(name)) for name in names]


def test_every_unit_is_done_once_even_if_another_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(on_device, "UNITS", {"b": units("small", "large", "after")})
    for _ in range(2):
        accelerator.work("b", tmp_path, smoke=True)
    records = Records(tmp_path / "b.jsonl")
    assert len(records.read()) == 6
    found = records.found()
    assert list(found) == ["small", "large", "after"]
    assert found["small"]["ms"] == 1
    assert found["large"]["error"] == "MemoryError: out of memory"
    assert {record["device"] for record in found.values()} == {"cpu"}


def test_a_unit_in_which_two_calls_died_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(on_device, "UNITS", {"b": units("hangs", "after")})
    records = Records(tmp_path / "b.jsonl")
    records.append(unit="hangs", begun=True)
    records.append(unit="hangs", begun=True)
    # A call ended in the middle of a line.
    with (tmp_path / "b.jsonl").open("a") as file:
        file.write('{"unit": "aft\n')
    accelerator.work("b", tmp_path, smoke=True)
    assert list(records.found()) == ["after"]


@pytest.mark.slow
def test_programs_that_take_too_long_are_asked_to_end_and_then_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(accelerator, "GRACE", 1.0)
    # Each word and its newline in one call: both programs write to one file.
    say = "import os, signal, sys, time; say = lambda word: os.write(1, word + b'\\n')\n"
    stubborn = say + "signal.signal(signal.SIGTERM, lambda *_: say(b'asked')); say(b'begun')\n"
    stubborn += "for _ in range(600): time.sleep(0.1)"
    polite = (
        say + "signal.signal(signal.SIGTERM, lambda *_: sys.exit(say(b'saved') and None)); signal.pause()"
    )
    log = tmp_path / "log.txt"
    run([[sys.executable, "-c", code] for code in (stubborn, polite)], 3.0, log, {})
    assert sorted(log.read_text().split()) == ["asked", "begun", "saved"]


def test_programs_that_end_are_not_waited_for(tmp_path):
    run(
        [[sys.executable, "-c", "import os; print(os.environ['HERE'])"]],
        60,
        tmp_path / "log",
        {"HERE": "yes"},
    )
    assert (tmp_path / "log").read_text() == "yes\n"


@pytest.mark.parametrize(
    ("speeds", "expected"),
    [
        ({}, 1),
        ({"c10-cnn1 | layca": 100.0}, 1),
        ({"c10-cnn1 | layca, 2 processes": 150.0}, 1),
        ({"c10-cnn1 | layca": 100.0, "c10-cnn1 | layca, 2 processes": 105.0}, 1),
        (
            {
                "c10-cnn1 | layca": 100.0,
                "c10-cnn1 | layca, track_rotation": 900.0,
                "c10-cnn1 | layca, 2 processes": 130.0,
                "c10-cnn1 | layca, 4 processes": 160.0,
                "c10-cnn1 | layca, vmap over 2 seeds": 900.0,
                "c100-resnet | layca": 900.0,
            },
            4,
        ),
    ],
)
def test_as_many_runs_at_once_as_are_fastest(speeds, expected, tmp_path):
    found = {unit: {"images/s": speed} for unit, speed in speeds.items()}
    assert side_by_side(found) == expected
    for unit, record in found.items():
        Records(tmp_path / "c.jsonl").append(unit=unit, **record)
    started = commands("d", Flags(out=tmp_path, data_dir="pictures"))
    assert [command[-2:] for command in started] == [[str(i), str(expected)] for i in range(expected)]
    assert "--data-dir" in started[0]


def test_steps_are_compared_on_the_same_tree_and_with_the_copy():
    records = {
        "copy": {"GB/s": 100.0},
        "100 M | float32 | sgd": {"ms": 2.0, "GB/s": 90.0},
        "100 M | float32 | layca": {"ms": 3.0, "GB/s": 80.0},
        "100 M | bfloat16 | layca": {"ms": 1.0},
        "large": {"error": "out of memory"},
    }
    found = compared(records)
    assert found["100 M | float32 | layca"] == {"ms": 3.0, "GB/s": 80.0, "of copy": 0.8, "against sgd": 1.5}
    assert found["100 M | bfloat16 | layca"] == {"ms": 1.0}
    assert found["large"] == records["large"]


def test_the_report_has_failures_and_names_the_data(tmp_path):
    Records(tmp_path / "a.jsonl").append(unit="float32", device="GPU X", random=1e-6, fails=["tiny"])
    (tmp_path / "tests.txt").write_text(
        "tests/test_a.py::test_x PASSED  [ 50%]\n[gw1] [100%] FAILED tests/test_a.py::test_y \n"
        "E   assert 1 == 2\nFAILED tests/test_a.py::test_y - assert 1 == 2\n"
    )
    config = first.runs("paper")[0].fields()
    line = {"config": config, "test_accuracy": 0.89, "seconds": 90.0, "device": "GPU X"}
    line |= {"data": {"name": "CIFAR-10, JPEG 75"}, "matmul_precision": "tensorfloat32"}
    (tmp_path / "results" / "paper").mkdir(parents=True)
    (tmp_path / "results" / "paper" / "fig2.jsonl").write_text(json.dumps(line) + "\n")
    said = report(tmp_path)
    assert "a, on GPU X" in said
    assert "| float32 | 1e-06 | ['tiny'] |" in said
    assert (
        "tests: 1 PASSED, 1 FAILED, 0 ERROR, 0 SKIPPED\nFAILED tests/test_a.py::test_y - assert 1 == 2"
        in said
    )
    assert "test accuracy 0.8900, 90 s; CIFAR-10, JPEG 75, GPU X, tensorfloat32" in said


def test_an_unknown_piece_is_refused(tmp_path, capsys):
    assert accelerator.main(["--pieces", "abx", "--out", str(tmp_path / "out")]) == 2
    assert "--pieces must be of a, b, c, d, not 'x'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_tests_that_run_on_the_device_are_there():
    files = [argument for argument in accelerator.tests(smoke=False) if argument.endswith(".py")]
    assert len(files) > 10
    assert not any("sharding" in file for file in files)
    assert len(accelerator.tests(smoke=True)) == len(accelerator.tests(smoke=False)) - len(files) + 1


@pytest.mark.parametrize("smoke", [True, False])
@pytest.mark.parametrize("piece", "abc")
def test_units_have_names_of_their_own(piece, smoke):
    names = [name for name, _ in on_device.UNITS[piece](smoke)]
    assert len(set(names)) == len(names)


def test_the_reference_of_the_accuracy_is_algorithm_1():
    w, s = np.random.default_rng(0).normal(size=(2, 30, 20))
    expected = oracle.layca_step(w, -s, w, on_device.RATE) - w
    np.testing.assert_allclose(on_device.turned(w, s), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", on_device.BOUNDS)
def test_the_accuracy_is_within_its_bounds_here(name):
    assert on_device.accuracy(name, (24, 16))["fails"] == []


def test_the_first_runs_begin_with_layca_against_sgd_at_two_seeds():
    runs = [run.config for run in first.runs("paper")]
    assert {(run.task, run.alpha) for run in runs[:4]} == {("c10-cnn1", 0.0)}
    assert [(run.layca, run.seed) for run in runs[:4]] == [(True, 0), (False, 0), (True, 1), (False, 1)]
    assert {run.learning_rate for run in runs if not run.layca and run.task == "c10-cnn1"} == {
        1 / 3,
        1.0,
        3.0,
    }
    logs = first.log_of("paper")
    assert [logs.get(config_key(run)) for run in first.runs("paper")[:4]] == ["fig2", "fig2", None, None]


def test_an_impossible_share_is_refused(capsys):
    assert first.main(["--share", "2", "2"]) == 2
    assert "0 <= PART < PARTS, not 2 2" in capsys.readouterr().err


@pytest.mark.slow
def test_smoke(tmp_path, monkeypatch, capsys):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setattr(accelerator, "SMOKE", {"a": 90.0, "b": 60.0, "c": 20.0, "d": 30.0})
    out = tmp_path / "out"
    assert accelerator.main(["--smoke", "--minutes", "5", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.strip() == (out / "report.md").read_text().strip()
    assert "a, on cpu" in said
    assert "tests: 2 PASSED, 0 FAILED" in said
    assert "small, float32, layca" in said
    assert {record["unit"] for record in Records(out / "calls.jsonl").read()} == set("abcd")
    assert signal.getsignal(signal.SIGTERM) == before
