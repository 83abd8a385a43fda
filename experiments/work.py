"""Does runs: each once, even if several commands ask for it, on a device that several commands can share."""

import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
from filelock import BaseFileLock, FileLock, Timeout
from tqdm import tqdm

import train
from data import DataError
from data.writing import FileError
from experiments import runs
from experiments.log import Log
from experiments.results import Results
from experiments.runs import Run, Training, by_program, unfinished
from training.parallel import matmul_precision, warn_of_idle_gpu

# Programs compiled for accelerators, for all processes that do runs.
COMPILED = Path(__file__).parent / "compiled"


def finish(log: Log, runs: Sequence[Run], results: Results, data_dir: str | None = None) -> None:
    """Does the runs that are not logged, and logs them one by one.

    Runs that another command has begun come last: this one waits for them, and does them if the other ended
    early.

    Raises:
      DataError: the logged runs used other data than those in `data_dir`.
      FileError: the log cannot be written.
    """
    missing = [run for run in by_program(runs) if not results.has(run)]
    if not missing:
        return
    refuse_unwritable(log.path)
    prepare_device()
    warn_of_idle_gpu()
    with tqdm(total=len(missing), desc=log.path.stem, unit="run") as bar:
        begun = [run for run in missing if not _done(run, log, results, data_dir, bar, wait=False)]
        for run in begun:
            _done(run, log, results, data_dir, bar, wait=True)


def _done(run: Run, log: Log, results: Results, data_dir: str | None, bar: tqdm, wait: bool) -> bool:
    """Does a run unless it was logged meanwhile; returns `False` if another command is doing it."""
    log.path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(log.path.with_name(f".{unfinished(run).name}.lock"))
    try:
        with held(lock, "a run that another command has begun") if wait else lock.acquire(timeout=0):
            found = results.again()
            if not found.has(run):
                if isinstance(run, Training):
                    refuse_other_data(run, found, data_dir)
                keep(log, run, line(run, data_dir), results)
            # A command that waits for this file finds the run logged.
            Path(lock.lock_file).unlink(missing_ok=True)
    except Timeout:
        return False
    bar.update()
    return True


def held(lock: BaseFileLock, by: str) -> AbstractContextManager[Any]:
    """Acquires a lock; if another process has it, prints what it is waiting for."""
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        print(f"waiting for {by}", file=sys.stderr, flush=True)
        return lock.acquire()


def keep(log: Log, run: Run, line: Mapping[str, Any], results: Results) -> None:
    """Logs a run, unless another command has logged it meanwhile, and removes its saved state."""
    if not results.again().has(run):
        log.append(line)
    shutil.rmtree(unfinished(run), ignore_errors=True)


def line(run: Run, data_dir: str | None) -> dict[str, Any]:
    """Does a run and returns its line of the log."""
    started = time.perf_counter()
    # The toy's runs are cheap enough for float32.
    precision = matmul_precision() if isinstance(run, Training) else "float32"
    with jax.default_matmul_precision(precision):
        found = run.execute(data_dir)
    # In a run that was interrupted, earlier epochs count too.
    seconds = max(time.perf_counter() - started, found.get("seconds", 0.0))
    return {
        "config": run.fields(),
        "device": train.all_devices().describe(),
        "matmul_precision": precision,
        **found,
        "seconds": round(seconds, 1),
        "versions": {package: version(package) for package in ("jax", "optax", "flax")},
    }


class Job(NamedTuple):
    """A run that submitit calls; on this machine it uses only its share of the cores and one GPU.

    Attributes:
      run: the run.
      data_dir: folder of datasets that are not embedded.
      cores: the cores to use; empty on a cluster, which assigns them itself.
      gpu: the GPU to use, as in `CUDA_VISIBLE_DEVICES`, if there is any.
    """

    run: Run
    data_dir: str | None
    cores: tuple[int, ...] = ()
    gpu: str | None = None

    def __call__(self) -> dict[str, Any]:
        if self.cores:
            os.sched_setaffinity(0, self.cores)  # before jax starts a thread per core
        if self.gpu is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.gpu  # submitit hides all of them from local jobs
        prepare_device()
        return line(self.run, self.data_dir)

    def checkpoint(self) -> Any:
        """Returns what submitit queues after a preemption: the same run, which continues where it was."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def prepare_device() -> None:
    """Lets several processes share one accelerator and the programs compiled for it."""
    # Read when jax starts its backend. By default each process takes 75 % of the memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # Not on CPUs: a program compiled for one may not run on another that shares the folder.
    given = jax.config.jax_compilation_cache_dir  # pyrefly: ignore[missing-attribute]
    if given is None and jax.default_backend() != "cpu":
        jax.config.update("jax_compilation_cache_dir", str(COMPILED))


def refuse_other_data(run: Training, done: Results, data_dir: str | None) -> None:
    """Raises `DataError` if logged runs of the same task used other data than this run would."""
    source = runs.load(run.config, data_dir).source
    if source is None:
        return
    logged = [line for line in done.values() if line["config"].get("task") == run.task()]
    for name in {line["data"]["name"] for line in logged if "data" in line} - {source.name}:
        raise DataError(
            f"there are logs of {run.task()} on {name}, and the data here are {source.name}: move those"
            " logs away, or name the other data's folder with --data-dir"
        )


def refuse_unwritable(path: Path) -> None:
    """Raises `FileError` if a file could not be written there; creates nothing."""
    existing = next(part for part in (path, *path.parents) if part.exists())
    if existing.is_file() != (existing == path):
        kind = "file" if existing == path else "folder"
        raise FileError(f"{path} could not be written: {existing} is no {kind}")
    if not os.access(existing, os.W_OK):
        raise FileError(f"{path} could not be written: {existing} is not writable")
