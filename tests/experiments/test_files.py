"""Tests logs and figures that cannot be read or written, and two commands at once."""

import json
import threading

import pytest
from filelock import FileLock
from quick_runs import Quick, command, wait_for

from experiments import __main__ as command_line
from experiments.__main__ import main
from experiments.log import Log
from experiments.results import Results
from experiments.runs import training, unfinished
from experiments.work import finish


@pytest.fixture(autouse=True)
def command_line_as_it_was(monkeypatch):
    monkeypatch.setattr(command_line, "experiment", command_line.experiment)


@pytest.mark.parametrize(
    ("folder", "file", "expected"),
    [
        (None, "results", "results is no folder"),
        (None, "results/laptop", "laptop is no folder"),
        (None, "figures", "figures is no folder"),
        ("results/laptop/fig1a.jsonl", None, "fig1a.jsonl: Is a directory"),
        ("figures/laptop/fig1a.png", None, "fig1a.png is no file"),
    ],
)
def test_unwritable_files_are_reported_before_a_run(folder, file, expected, tmp_path, capsys):
    for path in filter(None, [folder]):
        (tmp_path / path).mkdir(parents=True)
    for path in filter(None, [file]):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    before = sorted(tmp_path.rglob("*"))
    run = Quick("works", 0, str(tmp_path))
    assert command(tmp_path, [run]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("python -m experiments: error: ")
    assert said.endswith(expected)
    assert sorted(tmp_path.rglob("*")) == before


def log_of(folder, line):
    log = Log("laptop", "fig2", folder)
    log.path.parent.mkdir(parents=True)
    log.path.write_text(line + "\n")
    return log


def test_the_error_names_a_missing_field_and_its_line(tmp_path, capsys):
    run = training(task="mnist5k-mlp")
    log = log_of(tmp_path, json.dumps({"config": run.fields(), "test_accuracy": 0.5, "curves": {}}))
    assert main(["fig3", "--draw"], tmp_path, tmp_path) == 1
    assert f"{log.path}:1 has no field 'rotation'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        '{"config": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"config": {}, "curves": [1]}',
        '{"config": {}, "seconds": "3"}',
        '{"config": {}, "test_accuracy": {}}',
    ],
)
def test_a_line_with_fields_of_wrong_types_is_skipped(line, tmp_path, capsys):
    log = log_of(tmp_path, line)
    assert main(["summary"], tmp_path) == 0
    assert f"{log.path}:1 is damaged and was skipped" in capsys.readouterr().err


def test_a_run_that_another_command_has_begun_is_left_to_it(tmp_path, capsys):
    first, second = (Quick("works", seed, str(tmp_path)) for seed in range(2))
    log = Log("laptop", "fig1a", tmp_path)
    log.path.parent.mkdir()
    lock = FileLock(log.path.with_name(f".{unfinished(first).name}.lock"), thread_local=False)
    said = []
    waits = lambda: said.append(capsys.readouterr().err) or "waiting for a run that another" in "".join(said)
    with lock:
        other = threading.Thread(target=finish, args=(log, [first, second], Results("laptop", tmp_path)))
        other.start()
        wait_for(second.starts)
        wait_for(waits)
        log.append({"config": first.fields()})
    other.join()
    assert sorted(line["config"]["seed"] for line in log.read().values()) == [0, 1]
    assert len(log.path.read_text().splitlines()) == 2
    assert first.starts() == []
    assert [path.name for path in log.path.parent.glob("*.lock")] == [".fig1a.lock"]
