"""A run that is killed again and again is the run that was left alone, bit for bit."""

import pytest

from benchmarks.kill_resume import compare


@pytest.mark.slow
def test_killed_three_times(capsys):
    compare(kills=3, epochs=12)
    assert "12 records and" in capsys.readouterr().out
