"""Tests what `benchmarks.faults` notices, and three kills."""

import json
import random

import pytest

from benchmarks.faults import case, killed
from benchmarks.undisturbed import ROOT, Ended, Undisturbed


@pytest.mark.parametrize(
    ("ended", "wrong"),
    [
        (Ended(1, [], ["train.py: error: the disk is full"]), 0),
        (Ended(0, [], ["train.py: error: the disk is full"]), 1),
        (Ended(1, [], ["the disk is full"]), 1),
        (Ended(1, [], ["warning", "train.py: error: the disk is full"]), 1),
        (Ended(1, [], ["Traceback (most recent call last):", "OSError"]), 2),
        (Ended(1, ["train.py: error: the disk is full"], []), 2),
    ],
)
def test_a_wrong_end_is_noticed(ended, wrong, tmp_path):
    assert len(case("full disk", tmp_path, ended, 1, "train.py: error: ")["wrong"]) == wrong


def test_no_fault_in_the_log_ended_wrongly():
    _, *lines = map(json.loads, (ROOT / "benchmarks" / "faults.jsonl").read_text().splitlines())
    assert [line["fault"] for line in lines].count("kill -9") == 20
    assert [line["fault"] for line in lines].count("full disk") == 30
    assert [line for line in lines if line["wrong"]] == []


@pytest.mark.slow
def test_a_run_that_is_killed_three_times_ends_like_one_that_is_not(tmp_path):
    undisturbed = Undisturbed(tmp_path / "undisturbed")
    lines = list(killed(undisturbed, tmp_path / "killed", 3, random.Random(0)))
    assert [line["wrong"] for line in lines] == [[], [], []]

    metrics = tmp_path / "killed" / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('"train_accuracy": 0.', '"train_accuracy": 1.', 1))
    assert undisturbed.differences(tmp_path / "killed") == ["its records differ"]
