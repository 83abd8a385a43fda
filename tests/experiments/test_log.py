"""Tests that logs have whole lines, and that the name of a run is stable."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.log import Log, key
from experiments.runs import config_key, training

ROOT = Path(__file__).parents[2]
APPEND = """
import sys
from pathlib import Path
from experiments.log import Log
log = Log("laptop", "fig2", Path(sys.argv[1]))
for i in range(125):
    log.append({"config": {"process": int(sys.argv[2]), "i": i}, "filling": "x" * 5000})
"""


def test_a_run_is_found_by_its_configuration(tmp_path):
    run, other = training(seed=1), training(seed=2)
    log = Log("laptop", "fig2", tmp_path)
    log.append({"config": run.fields(), "test_accuracy": 0.5})
    read = log.read()
    assert read[config_key(run)]["test_accuracy"] == 0.5
    assert config_key(other) not in read


def test_the_name_of_a_run_is_stable():
    config = training(learning_rate=3.0**-3, alpha=-0.1).fields()
    assert "data_dir" not in config
    assert key(config) == key(json.loads(json.dumps(config))) == key(dict(reversed(config.items())))


def test_damaged_lines_are_reported_skipped_and_kept(tmp_path, capsys):
    log = Log("laptop", "fig2", tmp_path)
    log.append({"config": {"seed": 0}})
    damaged = [b'{"config": {"seed": 1', b"\xff\xfe", b"[1]", b'{"seed": 1}', b"null", b'{"config": 3}']
    with log.path.open("ab") as file:
        file.write(b"\n".join(damaged))
    before = log.path.read_bytes()
    # The last line has no newline: the next line must not become part of it.
    log.append({"config": {"seed": 2}})
    assert [run["config"]["seed"] for run in log.read().values()] == [0, 2]
    assert log.path.read_bytes().startswith(before)
    reports = capsys.readouterr().err.splitlines()
    assert [f"{log.path}:{number} is damaged" in line for number, line in enumerate(reports, 2)] == [True] * 6


@pytest.mark.slow
def test_eight_processes_append_whole_lines(tmp_path, capsys):
    processes = [
        subprocess.Popen([sys.executable, "-c", APPEND, str(tmp_path), str(i)], cwd=ROOT) for i in range(8)
    ]
    assert [process.wait() for process in processes] == [0] * 8
    assert len(Log("laptop", "fig2", tmp_path).read()) == 1000
    assert capsys.readouterr().err == ""
