"""Does each run in a job of its own, through submitit: on this machine (`local`) or on a cluster (`slurm`).

A job writes its run's line of the log to a file of its own in `jobs/PRESET/CLUSTER`, and the command logs it,
so the nodes need no common lock. From submitit's files there, later commands know which job has which run.
"""

import time
from collections.abc import Container, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import submitit
from filelock import FileLock
from submitit.helpers import DelayedSubmission
from tqdm import tqdm

from experiments.log import Log, key
from experiments.results import Results
from experiments.runs import Run, config_key
from experiments.work import Job, held, keep
from training.config import UsageError
from training.parallel import shares
from training.run import Interrupted


def find(folder: Path, runs: Container[str]) -> dict[str, Any]:
    """Returns the jobs of all commands that have not failed, by the `config_key` of their runs."""
    kind = {"local": submitit.LocalJob, "slurm": submitit.SlurmJob}[folder.name]
    jobs: dict[str, Any] = {}
    # By date. All jobs are made before the first query: submitit asks Slurm once about all it knows.
    for path in sorted(folder.glob("*/*_submitted.pkl")):
        with suppress(Exception):  # reading a file that was cut short raises almost anything
            submission: Any = DelayedSubmission.load(path)
            if (name := config_key(submission.function.run)) in runs:
                jobs[name] = kind(path.parent, path.name.removesuffix("_submitted.pkl"))
    # Check that the file exists: submitit would wait for that of a job that ended without one.
    good = lambda name, job: job.paths.result_pickle.exists() and line_of(job, name) is not None
    return {name: job for name, job in jobs.items() if not job.done() or good(name, job)}


def line_of(job: Any, name: str) -> dict[str, Any] | None:
    """Returns the line of a job, if the job succeeded, its file is whole and the run is the right one."""
    with suppress(Exception):
        found = job.result()
        return found if key(found["config"]) == name else None


def failure(job: Any) -> str:
    """Quotes the last line that a failed job printed, which usually gives the reason, and names its log."""
    # srun only adds an exit code.
    said = [text.strip() for text in (job.stderr() or "").split("\n") if not text.startswith("srun: ")]
    return next((f": {text}" for text in reversed(said) if text), "") + f" (its log is in {job.paths.stderr})"


def leave(jobs: list[Any], local: bool) -> str:
    """Ends local jobs, leaves Slurm's, and returns a message that says how to continue."""
    if not local:
        arrays = " ".join(sorted({job.job_id.split("_")[0] for job in jobs}))
        stay = "jobs stay queued or running; the same command waits for them again and logs them"
        return f"{len(jobs)} {stay}; to end them: scancel {arrays}"
    time.sleep(2)  # Ctrl-C on a terminal reaches them too; a second one would stop them from saving
    for job in jobs:
        job.cancel()
    return f"{len(jobs)} jobs were ended; the same command again does their runs and the remaining ones"


def finish(
    todo: Iterable[tuple[Log, Run]],
    results: Results,
    executor: submitit.AutoExecutor,
    at_once: int,
    data_dir: str | None,
) -> list[str]:
    """Does runs that are not logged in jobs, and logs each once, even if several commands ask for it.

    Returns:
      A message per run that failed; the next call tries these again.

    Raises:
      UsageError: Slurm refuses the jobs.
      Interrupted: after Ctrl-C; local jobs were ended, Slurm's go on.
    """
    folder = Path(executor.folder).parent  # named after the cluster
    folder.mkdir(parents=True, exist_ok=True)
    # The lock is held to find, submit and log jobs.
    local, lock = folder.name == "local", FileLock(folder / ".lock")
    with held(lock, f"another command with {folder.name} jobs"), tqdm(unit="run") as bar:
        found = results.again()
        runs = {name: (log, run) for log, run in todo if (name := config_key(run)) not in found}
        waiting, failed, taken = find(folder, runs), [], {}
        left = [name for name in runs if name not in waiting]
        bar.reset(total=len(runs))
        free = shares(at_once) if local else [((), None)] * len(left)
        try:
            while waiting or left:
                if now := {left.pop(0): free.pop(0) for _ in range(min(len(left), len(free)))}:
                    mine = [Job(runs[name][1], data_dir, *share) for name, share in now.items()]
                    waiting |= zip(now, executor.submit_array(mine), strict=True)
                    taken |= now
                if not local:
                    lock.release()
                ended = {name: job for name, job in waiting.items() if job.done()}
                for name, job in ended.items():
                    del waiting[name]
                    free += [taken.pop(name)] if name in taken else []
                    log, run = runs[name]
                    if (line := line_of(job, name)) is None:
                        failed.append(f"run {name} failed{failure(job)}")
                    else:
                        with lock:
                            keep(log, run, line, results)
                bar.update(len(ended))
                if not ended:
                    time.sleep(0.5 if local else 10)
        except RuntimeError as error:  # submitit's FailedSubmissionError and FailedJobError
            raise UsageError(f"sbatch refused the jobs: {error}") from error
        except KeyboardInterrupt:
            raise Interrupted(leave(list(waiting.values()), local)) from None
    return failed
