"""Tests that a run that was killed and resumed several times equals an undisturbed run, bit for bit."""

import pytest

from benchmarks.kill_resume import compare


@pytest.mark.slow
def test_a_run_that_was_killed_three_times_equals_an_undisturbed_one(capsys):
    compare(kills=3, epochs=12)
    assert "12 records and" in capsys.readouterr().out
