"""One job per run, through submitit: on this machine (`local`) or on a cluster (`slurm`).

A job leaves its run's line of the log in a file of its own, and the command logs it: the nodes need no common
lock. `jobs/PRESET/submitted.jsonl` says which job has which run, for commands that come later.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from tqdm import tqdm

from data.writing import reraise_os_errors
from experiments.log import Log, key
from experiments.results import Results
from experiments.runs import Job, Run, unfinished
from training.parallel import shares
from training.run import Interrupted

JOBS = Path(__file__).parent / "jobs"
POLL = {"local": 0.5, "slurm": 10.0}  # seconds between two looks at the jobs' files


class ClusterError(Exception):
    """Jobs cannot be submitted as asked for."""


@dataclass(frozen=True)
class Cluster:
    """Where and how the jobs of a preset run: `at_once` at a time, `minutes` (240 if not given) each."""

    name: Literal["local", "slurm"]
    preset: str
    at_once: int | None = None
    minutes: int | None = None
    jobs: Path = JOBS

    def __post_init__(self) -> None:
        for flag, value in (("--jobs", self.at_once), ("--time-limit", self.minutes)):
            if value is not None and value < 1:
                raise ClusterError(f"{flag} must be 1 or more, not {value}")
        if find_spec("submitit") is None:
            raise ClusterError('--cluster needs submitit: pip install -e ".[cluster]"')
        if self.name == "slurm" and shutil.which("sbatch") is None:
            raise ClusterError("--cluster slurm: there is no sbatch on PATH; try --cluster local")

    @property
    def folder(self) -> Path:
        return self.jobs / self.preset

    def submit(self, jobs: dict[str, Job]) -> dict[str, Any]:
        """Submits jobs by the `key` of their runs, to Slurm as one array, and returns submitit's."""
        import submitit

        if not jobs:
            return {}
        # A folder of their own: the numbers of local jobs are those of processes, which come again.
        folder = tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=self.folder)
        try:
            executor = submitit.AutoExecutor(folder, self.name, **{f"{self.name}_max_num_timeout": 0})
            gpus = 1 if self.preset == "paper" else None
            executor.update_parameters(
                name="layca",
                timeout_min=self.minutes or 240,
                slurm_gpus_per_node=gpus,
                slurm_array_parallelism=self.at_once or 1000,
            )
            submitted = dict(zip(jobs, executor.submit_array(list(jobs.values())), strict=True))
        except RuntimeError as error:  # submitit's FailedSubmissionError and FailedJobError
            raise ClusterError(f"sbatch refused the jobs: {error}") from error
        for name, job in submitted.items():
            place = {"cluster": self.name, "folder": Path(folder).name, "job": job.job_id}
            Log(self.preset, "submitted", self.jobs).append({"config": jobs[name].run.numbers(), **place})
        return submitted

    def find(self, names: Iterable[str]) -> dict[str, Any]:
        """Returns the jobs, of any command, that have not failed, by the `key` of their runs."""
        import submitit

        places = Log(self.preset, "submitted", self.jobs).read()
        kinds = {"local": submitit.LocalJob, "slurm": submitit.SlurmJob}
        # All of them before the first is asked about: submitit asks Slurm once about all that it knows.
        jobs = {
            name: kinds[place["cluster"]](self.folder / place["folder"], place["job"])
            for name in names
            if (place := places.get(name)) is not None
        }
        # submitit would wait for the file of a job that has ended without one.
        good = lambda job: job.paths.result_pickle.exists() and job.exception() is None
        return {name: job for name, job in jobs.items() if not job.done() or good(job)}

    def alone(self) -> AbstractContextManager[Any]:
        """Keeps other commands of the preset from having local jobs: each would take all cores."""
        if self.name == "slurm":
            return nullcontext()
        lock = FileLock(self.folder / ".local")
        try:
            return lock.acquire(blocking=False)
        except Timeout:
            print("waiting for another command with local jobs", file=sys.stderr, flush=True)
            return lock.acquire()

    def leave(self, jobs: Iterable[Any]) -> str:
        """Ends local jobs, leaves Slurm's, and says how to go on."""
        jobs = [job for job in jobs if self.name in type(job).__name__.lower()]
        if self.name == "slurm":
            arrays = " ".join(sorted({job.job_id.split("_")[0] for job in jobs}))
            stay = "jobs stay queued or running; the same command waits for them again and logs them"
            return f"{len(jobs)} {stay}; to end them: scancel {arrays}"
        time.sleep(2)  # Ctrl-C on a terminal reaches them too; a second one would keep them from ending
        for job in jobs:
            if not job.done():
                job.cancel()
        return f"{len(jobs)} jobs were ended; the same command again does their runs and those that are left"


def finish(
    todo: Iterable[tuple[Log, Run]], results: Results, cluster: Cluster, data_dir: str | None = None
) -> list[str]:
    """Has the runs that no log has done by jobs and logs them, once however many commands ask for one.

    Returns:
      A message for every run that failed; the next call tries these again.

    Raises:
      ClusterError: Slurm refuses the jobs.
      Interrupted: after Ctrl-C; local jobs have been ended, Slurm's are left.
    """
    runs = {key(run.numbers()): (log, run) for log, run in todo}
    failed: list[str] = []
    taken: dict[str, Any] = {}
    with reraise_os_errors(cluster.folder):
        cluster.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(cluster.folder / ".lock")  # for who looks for jobs, submits to Slurm or logs

    def start() -> None:
        now = {left.pop(0): free.pop(0) for _ in range(min(len(left), len(free)))}
        taken.update(now)
        waiting.update(cluster.submit({name: Job(runs[name][1], data_dir, *now[name]) for name in now}))

    with cluster.alone():
        with lock:
            logged = Results(results.preset, results.folder)  # others may have logged some since
            waiting = cluster.find([name for name in runs if name not in logged])
            left = [name for name in runs if name not in logged and name not in waiting]
            free = shares(cluster.at_once or 2) if cluster.name == "local" else [((), None)] * len(left)
            start()
        with tqdm(total=len(waiting) + len(left), unit="run", disable=not waiting) as bar:
            try:
                while waiting:
                    ended = [name for name, job in waiting.items() if job.done()]
                    for name in ended:
                        job, (log, run) = waiting.pop(name), runs[name]
                        free += [taken.pop(name)] if name in taken else []
                        found = None if job.exception() else job.result()
                        if found is None or key(found["config"]) != name:
                            failed.append(
                                f"run {name} failed{_last_words(job)} (its log is in {job.paths.stderr})"
                            )
                        else:
                            with lock:
                                if name not in Results(results.preset, results.folder):
                                    log.append(found)
                            shutil.rmtree(unfinished(run), ignore_errors=True)
                        bar.update()
                    start()
                    if not ended:
                        time.sleep(POLL[cluster.name])
            except KeyboardInterrupt:
                bar.close()
                raise Interrupted(cluster.leave(waiting.values())) from None
    return failed


def _last_words(job: Any) -> str:
    """The last line of what a failed job printed: as a rule the error's message, or what ended it."""
    # srun adds no more than an exit code.
    said = [text.strip() for text in (job.stderr() or "").split("\n") if not text.startswith("srun: ")]
    return next((f": {text}" for text in reversed(said) if text), "")
