"""Tests that jobs do each run once and no result is lost, even if jobs or commands are killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from quick_runs import Quick, command, wait_for

from experiments import __main__ as command_line
from experiments.log import Log
from experiments.runs import config_key

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Lets jobs, which are other processes, import the tests; restores the command line afterwards."""
    # Configuring logging, submitit would close all handlers, of which absl's closes pytest's capture.
    monkeypatch.setenv("SUBMITIT_LOG_LEVEL", "NOCONFIG")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
    monkeypatch.setattr(command_line, "experiment", command_line.experiment)


def logged(folder):
    """Returns `what` and the seed of every line of the log."""
    path = folder / "results" / "laptop" / "fig1a.jsonl"
    configs = [json.loads(line)["config"] for line in path.read_text().splitlines()] if path.exists() else []
    return sorted((config["what"], config["seed"]) for config in configs)


def starts(runs):
    return [len(run.starts()) for run in runs]


def states(pids):
    """Returns the states of processes: `S` for sleeping, `Z` for ended."""
    listed = subprocess.run(["ps", "-o", "stat=", "-p", ",".join(pids)], capture_output=True, text=True)
    return [line[0] for line in listed.stdout.split()]


def start(folder, *arguments):
    return subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "quick_runs.py"), str(folder), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_two_jobs_at_once_of_which_one_is_preempted_and_one_fails(tmp_path, capsys):
    kinds = [("meets", 0), ("preempted", 1), ("fails", 0)]
    runs = [Quick(what, seed, str(tmp_path)) for what, seed in kinds]
    assert command(tmp_path, runs, "--cluster", "local", "--data-dir", "shared") == 1
    said = capsys.readouterr().err
    message = next(line for line in said.splitlines() if "error: run" in line)
    assert f"run {config_key(runs[-1])} failed: ValueError: there are no digits" in message
    assert "no digits" in Path(message.split(" in ")[-1].rstrip(")")).read_text()
    assert logged(tmp_path) == sorted(kinds[:-1])
    assert not (tmp_path / "figures").exists()
    assert starts(runs) == [1, 2, 1]
    lines = Log("laptop", "fig1a", tmp_path / "results").read().values()
    assert {line["data_dir"] for line in lines} == {"shared"}
    cores = len(os.sched_getaffinity(0))
    assert {line["cores"] for line in lines} <= {cores // 2 or 1, -(-cores // 2)}
    assert all(set(line["versions"]) == {"jax", "optax", "flax"} for line in lines)
    # Logged runs are not repeated.
    assert command(tmp_path, runs[:-1], "--cluster", "local") == 0
    assert starts(runs) == [1, 2, 1]
    assert (tmp_path / "figures" / "laptop" / "fig1a.png").exists()


@pytest.mark.slow
def test_a_killed_job_is_named_and_the_next_command_repeats_it(tmp_path, capsys):
    runs = [Quick("killed", 0, str(tmp_path)), Quick("works", 1, str(tmp_path))]
    assert command(tmp_path, runs, "--cluster", "local") == 1
    assert f"run {config_key(runs[0])} failed" in capsys.readouterr().err
    assert logged(tmp_path) == [("works", 1)]
    assert command(tmp_path, runs, "--cluster", "local") == 0
    assert logged(tmp_path) == [("killed", 0), ("works", 1)]


@pytest.mark.slow
def test_two_commands_at_once_do_every_run_once(tmp_path):
    commands = [start(tmp_path, "waits", "4", "--cluster", "local") for _ in range(2)]
    (tmp_path / "go").touch()
    ends = [process.communicate(timeout=300) for process in commands]
    assert [process.returncode for process in commands] == [0, 0], ends
    assert "waiting for another command with local jobs" in "".join(err for _, err in ends)
    assert logged(tmp_path) == [("waits", seed) for seed in range(4)]
    assert starts(Quick("waits", seed, str(tmp_path)) for seed in range(4)) == [1] * 4


@pytest.mark.slow
def test_a_killed_command_loses_nothing(tmp_path):
    runs = [Quick("waits", seed, str(tmp_path)) for seed in range(3)]
    with start(tmp_path, "waits", "3", "--cluster", "local") as killed:
        wait_for(lambda: runs[0].starts() and runs[1].starts())
        killed.kill()
    (tmp_path / "go").touch()
    # The jobs go on without it, and the next command logs their results.
    wait_for(lambda: len(list(tmp_path.rglob("*_result.pkl"))) == 2)
    assert logged(tmp_path) == []
    assert command(tmp_path, runs, "--cluster", "local") == 0
    assert logged(tmp_path) == [("waits", seed) for seed in range(3)]
    assert starts(runs) == [1, 1, 1]


@pytest.mark.slow
def test_ctrl_c_ends_local_jobs_and_the_next_command_continues(tmp_path):
    runs = [Quick("waits", seed, str(tmp_path)) for seed in range(2)]
    ended = start(tmp_path, "waits", "2", "--cluster", "local")
    wait_for(lambda: all(run.starts() for run in runs))
    ended.send_signal(signal.SIGINT)
    out, _ = ended.communicate(timeout=60)
    assert ended.returncode == 0
    assert "2 jobs were ended; the same command again" in out
    pids = [str(run.starts()[0]) for run in runs]
    wait_for(lambda: set(states(pids)) <= {"Z"})
    (tmp_path / "go").touch()
    assert command(tmp_path, runs, "--cluster", "local") == 0
    assert logged(tmp_path) == [("waits", 0), ("waits", 1)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--jobs", "2"], "are for --cluster"),
        (["--time-limit", "2"], "are for --cluster"),
        (["--cluster", "local", "--jobs", "0"], "--jobs must be 1 or more, not 0"),
        (["--cluster", "local", "--time-limit", "-1"], "--time-limit must be 1 or more, not -1"),
        (["--cluster", "slurm"], "there is no sbatch on PATH"),
    ],
)
def test_impossible_requests_are_refused_and_create_no_files(
    arguments, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command(tmp_path, [Quick("works", 0, str(tmp_path))], *arguments) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_submitit_the_error_names_the_extra(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert command(tmp_path, [], "--cluster", "local") == 2
    assert 'pip install -e ".[cluster]"' in capsys.readouterr().err
