"""Tests jobs of Slurm, whose commands are replaced by scripts that record their arguments."""

import stat
from types import SimpleNamespace

import pytest
from quick_runs import Quick, command
from submitit.helpers import DelayedSubmission

from experiments import __main__ as command_line
from experiments import cluster, work
from experiments.log import Log
from experiments.runs import config_key

COMMANDS = {
    # Jobs are numbered from 12.
    "sbatch": """
cat "$1" > $FAKE/script
echo >> $FAKE/calls
echo "Submitted batch job $((11 + $(wc -l < $FAKE/calls)))"
""",
    "srun": "exit 1",
    "sacct": "echo 'JobID|State|NodeList'; cat $FAKE/states",
}


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Returns the folder of the fake Slurm: `script` is the last one submitted, `states` those of jobs."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    (folder / "states").touch()
    for name, text in COMMANDS.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("FAKE", str(folder))
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setenv("SUBMITIT_LOG_LEVEL", "NOCONFIG")
    monkeypatch.setattr(command_line, "experiment", command_line.experiment)
    monkeypatch.setattr(cluster, "time", SimpleNamespace(sleep=ctrl_c, strftime=cluster.time.strftime))
    import submitit

    monkeypatch.setattr(submitit.SlurmJob, "_results_timeout_s", 0)
    monkeypatch.setattr(submitit.SlurmJob, "watcher", type(submitit.SlurmJob.watcher)())
    return folder


def ctrl_c(seconds):
    raise KeyboardInterrupt


def end(folder, job, outcome, value):
    """Writes the file that submitit writes when a job ends."""
    from submitit.core.utils import cloudpickle_dump

    (place,) = (folder / "jobs" / "laptop" / "slurm").glob(f"*/{job}_submitted.pkl")
    cloudpickle_dump((outcome, value), place.with_name(f"{job}_0_result.pkl"))


def submitted(folder):
    """Returns the names of the jobs by the seed of their run."""
    paths = sorted((folder / "jobs" / "laptop" / "slurm").glob("*/*_submitted.pkl"))
    seeds = [DelayedSubmission.load(path).function.run.seed for path in paths]
    return dict(zip(seeds, [path.name.removesuffix("_submitted.pkl") for path in paths], strict=True))


def logged(folder):
    return sorted(
        line["config"]["seed"] for line in Log("laptop", "fig1a", folder / "results").read().values()
    )


def found(run):
    return {"config": run.fields(), "test_accuracy": 0.5}


def test_jobs_of_an_array_are_left_found_again_and_logged(tmp_path, slurm, capsys, monkeypatch):
    runs = [Quick("works", seed, "") for seed in range(4)]
    arguments = ("--cluster", "slurm", "--jobs", "3", "--time-limit", "90")
    assert command(tmp_path, runs, *arguments) == 0
    assert "4 jobs stay queued or running; the same command" in (out := capsys.readouterr().out)
    assert "scancel 12\n" in out
    script = (slurm / "script").read_text().splitlines()
    assert {"#SBATCH --array=0-3%3", "#SBATCH --time=90", "#SBATCH --job-name=layca"} <= set(script)
    assert submitted(tmp_path) == {seed: f"12_{seed}" for seed in range(4)}
    # While nothing has ended, nothing is submitted and nothing logged.
    assert command(tmp_path, runs, *arguments) == 0
    assert "4 jobs stay" in capsys.readouterr().out
    assert len((slurm / "calls").read_text().splitlines()) == 1
    # One succeeded, one failed, one was cancelled, one runs: the failed and the cancelled are resubmitted.
    end(tmp_path, "12_0", "success", found(runs[0]))
    end(tmp_path, "12_1", "error", "Traceback")
    (slurm / "states").write_text("12_2|CANCELLED|\n12_3|RUNNING|\n")
    assert command(tmp_path, runs, *arguments) == 0
    assert "3 jobs stay" in (out := capsys.readouterr().out)
    assert "scancel 12 13\n" in out
    assert logged(tmp_path) == [0]
    assert submitted(tmp_path) == {0: "12_0", 1: "13_0", 2: "13_1", 3: "12_3"}

    # While the command waits, one fails and is named; the others are logged; no figure is drawn.
    def between_two_queries(seconds):
        end(tmp_path, "12_3", "success", found(runs[3]))
        end(tmp_path, "13_0", "success", found(runs[1]))
        end(tmp_path, "13_1", "error", "Traceback")
        (place,) = (tmp_path / "jobs" / "laptop" / "slurm").glob("*/13_1_submitted.pkl")
        place.with_name("13_1_0_log.err").write_text(
            "slurmstepd: error: DUE TO TIME LIMIT\n\nsrun: error: task 0: Terminated\n"
        )

    cluster.time.sleep = between_two_queries
    assert command(tmp_path, runs, *arguments) == 1
    said = capsys.readouterr().err
    assert f"run {config_key(runs[2])} failed: slurmstepd: error: DUE TO TIME LIMIT (its log is in" in said
    assert "13_1_0_log.err)" in said
    assert logged(tmp_path) == [0, 1, 3]
    assert not (tmp_path / "figures").exists()
    # A single run is submitted without an array.
    cluster.time.sleep = lambda seconds: end(tmp_path, "14", "success", found(runs[2]))
    assert command(tmp_path, runs, *arguments) == 0
    assert "--array" not in (slurm / "script").read_text()
    assert logged(tmp_path) == [0, 1, 2, 3]
    assert (tmp_path / "figures" / "laptop" / "fig1a.png").exists()


def test_a_run_that_another_command_logs_meanwhile_is_logged_once(tmp_path, slurm):
    run = Quick("works", 0, "")

    def between_two_queries(seconds):
        end(tmp_path, "12", "success", found(run))
        Log("laptop", "fig1a", tmp_path / "results").append(found(run))

    cluster.time.sleep = between_two_queries
    assert command(tmp_path, [run], "--cluster", "slurm") == 0
    assert len((tmp_path / "results" / "laptop" / "fig1a.jsonl").read_text().splitlines()) == 1
    assert "#SBATCH --time=240" in (slurm / "script").read_text()
    assert "gpu" not in (slurm / "script").read_text()


def test_the_papers_preset_asks_for_a_gpu(tmp_path, slurm):
    assert command(tmp_path, [Quick("works", 0, "")], "--cluster", "slurm", "--preset", "paper") == 0
    assert "#SBATCH --gpus-per-node=1" in (slurm / "script").read_text().splitlines()


def test_the_result_of_another_run_is_not_logged(tmp_path, slurm, capsys):
    cluster.time.sleep = lambda seconds: end(tmp_path, "12", "success", found(Quick("works", 7, "")))
    assert command(tmp_path, [Quick("works", 0, "")], "--cluster", "slurm") == 1
    assert logged(tmp_path) == []


def test_truncated_files_only_affect_their_own_run(tmp_path, slurm):
    run = Quick("works", 0, "")
    assert command(tmp_path, [run], "--cluster", "slurm") == 0
    (place,) = (tmp_path / "jobs" / "laptop" / "slurm").glob("*/12_submitted.pkl")
    place.with_name("12_0_result.pkl").write_bytes(b"\x80\x05")
    place.with_name("9_submitted.pkl").write_bytes(b"\x80\x05")
    cluster.time.sleep = lambda seconds: end(tmp_path, "13", "success", found(run))
    assert command(tmp_path, [run], "--cluster", "slurm") == 0
    assert logged(tmp_path) == [0]


def test_refusals_of_slurm_are_reported(tmp_path, slurm, capsys):
    (slurm / "sbatch").write_text("#!/bin/sh\necho invalid partition >&2; exit 1\n")
    assert command(tmp_path, [Quick("works", 0, "")], "--cluster", "slurm") == 2
    assert "sbatch refused the jobs: invalid partition" in capsys.readouterr().err
    assert submitted(tmp_path) == {}


def test_a_preempted_job_is_queued_again_with_its_run():
    job = work.Job(Quick("works", 3, ""), "data")
    again = job.checkpoint()
    assert again.function == job
    assert (again.args, again.kwargs) == ((), {})
