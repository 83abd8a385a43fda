"""One job per run, through submitit: on this machine (`local`) or on a cluster (`slurm`).

A job leaves its run's line of the log in a file of its own in `jobs/PRESET/CLUSTER`, and the command logs it:
the nodes need no common lock. What submitit keeps there says which job has which run, for later commands.
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
from experiments.runs import Run
from experiments.work import Job, held, keep
from training.config import UsageError
from training.parallel import shares
from training.run import Interrupted


def find(folder: Path, runs: Container[str]) -> dict[str, Any]:
    """Returns the jobs, of any command, that have not failed, by the `key` of their runs."""
    kind = {"local": submitit.LocalJob, "slurm": submitit.SlurmJob}[folder.name]
    jobs: dict[str, Any] = {}
    # By date. All of them before the first is asked about: submitit asks Slurm once about all it knows.
    for path in sorted(folder.glob("*/*_submitted.pkl")):
        with suppress(Exception):  # reading a file that was cut short raises almost anything
            submission: Any = DelayedSubmission.load(path)
            if (name := key(submission.function.run.numbers())) in runs:
                jobs[name] = kind(path.parent, path.name.removesuffix("_submitted.pkl"))
    # submitit would wait for the file of a job that has ended without one.
    good = lambda name, job: job.paths.result_pickle.exists() and line_of(job, name) is not None
    return {name: job for name, job in jobs.items() if not job.done() or good(name, job)}


def line_of(job: Any, name: str) -> dict[str, Any] | None:
    """The line that a job has left, if it has ended well, its file is whole and the run is the right one."""
    with suppress(Exception):
        found = job.result()
        return found if key(found["config"]) == name else None


def why(job: Any) -> str:
    """The last line of what a failed job printed (as a rule it says what ended the job), and its file."""
    # srun adds no more than an exit code.
    said = [text.strip() for text in (job.stderr() or "").split("\n") if not text.startswith("srun: ")]
    return next((f": {text}" for text in reversed(said) if text), "") + f" (its log is in {job.paths.stderr})"


def leave(jobs: list[Any], local: bool) -> str:
    """Ends local jobs, leaves Slurm's, and says how to go on."""
    if not local:
        arrays = " ".join(sorted({job.job_id.split("_")[0] for job in jobs}))
        stay = "jobs stay queued or running; the same command waits for them again and logs them"
        return f"{len(jobs)} {stay}; to end them: scancel {arrays}"
    time.sleep(2)  # Ctrl-C on a terminal reaches them too; a second one would keep them from ending
    for job in jobs:
        job.cancel()
    return f"{len(jobs)} jobs were ended; the same command again does their runs and those that are left"


def finish(
    todo: Iterable[tuple[Log, Run]],
    results: Results,
    executor: submitit.AutoExecutor,
    at_once: int,
    data_dir: str | None,
) -> list[str]:
    """Has the runs that no log has done by jobs and logs them, once however many commands ask for one.

    Returns:
      A message for every run that failed; the next call tries these again.

    Raises:
      UsageError: Slurm refuses the jobs.
      Interrupted: after Ctrl-C; local jobs have been ended, Slurm's are left.
    """
    folder = Path(executor.folder).parent  # it is called after where jobs run
    folder.mkdir(parents=True, exist_ok=True)
    local, lock = folder.name == "local", FileLock(folder / ".lock")  # for who looks, submits or logs
    with held(lock, f"another command with {folder.name} jobs"), tqdm(unit="run") as bar:
        found = results.again()
        runs = {name: (log, run) for log, run in todo if (name := key(run.numbers())) not in found}
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
                        failed.append(f"run {name} failed{why(job)}")
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
