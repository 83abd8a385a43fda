"""Runs as jobs, each run a job of its own, through submitit: `local` on this machine, `slurm` on a cluster.

A job returns its run's line of the log, which submitit writes to a file of the job's own and then renames;
the command appends it to the log. Jobs could append themselves, but they would share the log through a
network file system, where locks may be missing or hold on one node only. A command that ends early loses
nothing: the next one finds in `jobs/PRESET/submitted.jsonl` which job has which run, waits for those that are
queued or running, logs what others have returned, and submits what is left.

A job that is preempted is queued again and goes on with its run from the last state that it saved, or starts
it over if runs of its task take less than a minute. One that reaches its time limit has failed; the next
command goes on from that state too.

Jobs of the preset `paper` get a GPU each from Slurm. Local jobs share those of this machine, each on one.
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from tqdm import tqdm

from data.writing import reraise_os_errors
from experiments.log import Log, key
from experiments.results import Results
from experiments.runs import Run, line, prepare_device, unfinished
from training.devices import visible_gpus
from training.interruption import Interrupted

JOBS = Path(__file__).parent / "jobs"
# Seconds between two looks at the jobs' files; on a cluster these are on other machines.
POLL = {"local": 0.5, "slurm": 10.0}


class ClusterError(Exception):
    """Jobs cannot be submitted as asked for."""


@dataclass(frozen=True)
class Job:
    """What a job does.

    Attributes:
      run: its run.
      data_dir: folder of datasets that are not embedded.
      cores: those of this machine that it keeps to; none on a cluster, which sees to that.
      gpu: the one of this machine that it keeps to, as `CUDA_VISIBLE_DEVICES` names it, if there is one.
    """

    run: Run
    data_dir: str | None
    cores: tuple[int, ...] = ()
    gpu: str | None = None

    def __call__(self) -> dict[str, Any]:
        if self.cores:
            # Before jax starts as many threads as it has cores.
            os.sched_setaffinity(0, self.cores)
        if self.gpu is not None:
            # submitit hides all of them from local jobs.
            os.environ["CUDA_VISIBLE_DEVICES"] = self.gpu
        prepare_device()
        return line(self.run, self.data_dir)

    def checkpoint(self) -> Any:
        """What is queued again after a preemption, as submitit asks: the same run."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class Cluster:
    """The jobs of a preset, in `folder`.

    Attributes:
      name: `local` or `slurm`.
      at_once: how many jobs may run at once; `None`: all that Slurm lets, or two on this machine.
      minutes: that a job may take.

    Raises:
      ClusterError: nothing can be submitted as asked for.
    """

    def __init__(
        self,
        name: Literal["local", "slurm"],
        preset: str,
        *,
        at_once: int | None = None,
        minutes: int | None = None,
        jobs: Path = JOBS,
    ) -> None:
        for flag, value in (("--jobs", at_once), ("--time-limit", minutes)):
            if value is not None and value < 1:
                raise ClusterError(f"{flag} must be 1 or more, not {value}")
        try:
            import submitit
        except ImportError:
            raise ClusterError('--cluster needs submitit: pip install -e ".[cluster]"') from None
        missing = [command for command in ("sbatch", "srun") if shutil.which(command) is None]
        if name == "slurm" and missing:
            raise ClusterError(
                f"--cluster slurm: there is no {missing[0]} on PATH; start it where jobs are submitted to"
                " Slurm, or use --cluster local"
            )
        self.name, self.folder = name, jobs / preset
        self.at_once = 2 if at_once is None and name == "local" else at_once
        self.minutes = 240 if minutes is None else minutes
        self.gpus_per_job = 1 if preset == "paper" else 0
        self._submitit: Any = submitit
        self._submitted = Log(preset, "submitted", jobs)

    @cached_property
    def _executor(self) -> Any:
        # A folder a command: the numbers of local jobs are those of processes, which come again.
        self.folder.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=self.folder)
        executor = self._submitit.AutoExecutor(folder, self.name, **{f"{self.name}_max_num_timeout": 0})
        executor.update_parameters(name="layca", timeout_min=self.minutes)
        if self.name == "slurm" and self.gpus_per_job:
            executor.update_parameters(gpus_per_node=self.gpus_per_job)
        if self.name == "slurm" and self.at_once is not None:
            executor.update_parameters(slurm_array_parallelism=self.at_once)
        return executor

    def submit(self, jobs: Sequence[Job]) -> dict[str, Any]:
        """Submits, on Slurm as one array, and returns submitit's jobs by the `key` of their runs."""
        if not jobs:
            return {}
        try:
            submitted = self._executor.submit_array(jobs)
        except RuntimeError as error:  # submitit's FailedSubmissionError and FailedJobError
            raise ClusterError(f"sbatch refused the jobs: {error}") from error
        folder = self._executor.folder.name
        for job, given in zip(jobs, submitted, strict=True):
            place = {"cluster": self.name, "folder": folder, "job": given.job_id}
            self._submitted.append({"config": job.run.numbers(), **place})
        return {key(job.run.numbers()): given for job, given in zip(jobs, submitted, strict=True)}

    def find(self, names: Iterable[str]) -> dict[str, Any]:
        """The jobs, of any command, that have not failed, by the `key` of their runs."""
        places = self._submitted.read()
        kinds = {"local": self._submitit.LocalJob, "slurm": self._submitit.SlurmJob}
        # All of them before the first is asked about: submitit asks Slurm once about all that it knows.
        jobs = {
            name: kinds[places[name]["cluster"]](self.folder / places[name]["folder"], places[name]["job"])
            for name in names
            if name in places
        }
        # submitit would wait for the file of a job that has ended without one.
        good = lambda job: job.paths.result_pickle.exists() and job.exception() is None
        return {name: job for name, job in jobs.items() if not job.done() or good(job)}

    def alone(self) -> Any:
        """While entered, no other command of this preset looks for jobs, submits to Slurm or logs."""
        return _locked(self.folder / ".lock")

    def alone_here(self) -> Any:
        """While entered, no other command of this preset has local jobs: each would take all cores."""
        if self.name == "slurm":
            return nullcontext()
        return _locked(self.folder / ".local", "waiting for another command with local jobs")

    def shares(self, jobs: int) -> list[tuple[tuple[int, ...], str | None]]:
        """Cores and GPU of each of the jobs, of `jobs` in all, that may be submitted at once."""
        if self.name == "slurm":
            return [((), None)] * jobs
        count, gpus = self.at_once or 1, visible_gpus() or [None]
        cores: list[tuple[int, ...]] = [()] * count
        if hasattr(os, "sched_setaffinity"):  # on Linux
            mine = sorted(os.sched_getaffinity(0))
            cores = [tuple(mine[i % len(mine) :: count]) for i in range(count)]
        return [(cores[i], gpus[i % len(gpus)]) for i in range(count)]

    def leave(self, jobs: Iterable[Any]) -> str:
        """Ends local jobs, leaves Slurm's, and says how to go on."""
        jobs = list(jobs)
        if self.name == "slurm":
            # Those of an array have numbers in common.
            ids = sorted({job.job_id.split("_")[0] for job in jobs})
            return (
                f"{len(jobs)} jobs stay queued or running; the same command waits for them again and logs"
                f" them; to end them: scancel {' '.join(ids)}"
            )
        jobs = [job for job in jobs if isinstance(job, self._submitit.LocalJob)]
        # Ctrl-C on a terminal reaches them too, and a second one would keep them from ending.
        time.sleep(2)
        for job in jobs:
            if not job.done():
                job.cancel()
        return f"{len(jobs)} jobs were ended; the same command again does their runs and those that are left"


def finish(
    todo: Iterable[tuple[Log, Run]], results: Results, cluster: Cluster, data_dir: str | None = None
) -> list[str]:
    """Has the runs that no log has done by jobs, and adds each to its log.

    Any number of commands may do so at once: the others wait for a run that one has submitted, and it is
    logged once.

    Returns:
      A message for every run that failed. The next call tries these again.

    Raises:
      ClusterError: Slurm refuses the jobs.
      Interrupted: after Ctrl-C; local jobs have been ended, Slurm's are left.
    """
    runs = {key(run.numbers()): (log, run) for log, run in todo}
    failed: list[str] = []
    with cluster.alone_here():
        with cluster.alone():
            # Once more: another command may have logged some since.
            logged = Results(results.preset, results.folder)
            waiting = cluster.find(name for name in runs if name not in logged)
            left = [name for name in runs if name not in logged and name not in waiting]
            shares, taken = cluster.shares(len(left)), {}

            def submit() -> None:
                now = dict(zip(left, shares, strict=False))
                del left[: len(now)], shares[: len(now)]
                taken.update(now)
                waiting.update(cluster.submit([Job(runs[name][1], data_dir, *now[name]) for name in now]))

            submit()
        with tqdm(total=len(waiting) + len(left), unit="run", disable=not waiting) as bar:
            try:
                while waiting:
                    ended = [name for name, job in waiting.items() if job.done()]
                    for name in ended:
                        job = waiting.pop(name)
                        found = _returned(name, job)
                        if found is None:
                            failed.append(
                                f"run {name} failed{_last_words(job)} (its log is in {job.paths.stderr})"
                            )
                        else:
                            _log(found, runs[name][0], results, cluster)
                            shutil.rmtree(unfinished(runs[name][1]), ignore_errors=True)
                        if name in taken:
                            shares.append(taken.pop(name))
                        bar.update()
                    submit()
                    if not ended:
                        time.sleep(POLL[cluster.name])
            except KeyboardInterrupt:
                bar.close()
                raise Interrupted(cluster.leave(waiting.values())) from None
    return failed


def _returned(name: str, job: Any) -> dict[str, Any] | None:
    """The line of the log that an ended job returned, `None` if it failed."""
    if job.exception() is not None:
        return None
    found = job.result()
    return found if key(found["config"]) == name else None


def _last_words(job: Any) -> str:
    """The last line of what a failed job printed: as a rule the error's message, or what ended it."""
    # srun adds no more than an exit code.
    said = [text.strip() for text in (job.stderr() or "").split("\n") if not text.startswith("srun: ")]
    return next((f": {text}" for text in reversed(said) if text), "")


def _log(found: dict[str, Any], log: Log, results: Results, cluster: Cluster) -> None:
    with cluster.alone():
        if key(found["config"]) not in Results(results.preset, results.folder):
            log.append(found)


@contextmanager
def _locked(path: Path, message: str = "") -> Iterator[None]:
    """Keeps other processes from entering with the same path, until left or until this process dies."""
    lock = FileLock(path)
    with reraise_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            if message:
                print(message, file=sys.stderr, flush=True)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()
