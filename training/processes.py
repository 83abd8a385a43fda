"""Several processes that train together: how they start, who speaks, what they agree on."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout

import jax
import numpy as np
from jax.experimental import multihost_utils

from training.config import UsageError

COORDINATOR = "JAX_COORDINATOR_ADDRESS"
_NUMBERS = ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


class OtherProcessError(Exception):
    """Another process ended the run."""


def start() -> None:
    """Connects this process with the others.

    JAX itself finds them under Slurm, Open MPI, Kubernetes and on TPUs, and reads the coordinator's address
    from the environment; elsewhere their number and this one's place are read there too.

    Raises:
      UsageError: the environment does not say who the others are.
    """
    given = {name: os.environ[name] for name in _NUMBERS if name in os.environ}
    if given and (len(given) < len(_NUMBERS) or COORDINATOR not in os.environ):
        missing = [name for name in (COORDINATOR, *_NUMBERS) if name not in os.environ]
        raise UsageError(f"--distributed: {' and '.join(given)} is set, {' and '.join(missing)} is not")
    for name, value in given.items():
        if not value.isdecimal():
            raise UsageError(f"--distributed: {name} must be a number, not {value!r}")
    count, number = (int(given[name]) if given else None for name in _NUMBERS)
    if count is not None and number is not None and number >= count:
        raise UsageError(f"--distributed: JAX_PROCESS_ID must be below the {count} processes, not {number}")
    try:
        jax.distributed.initialize(num_processes=count, process_id=number)
    except (ValueError, RuntimeError) as error:
        raise UsageError(
            f"--distributed: {error}. Without a cluster that JAX knows, set {COORDINATOR} (host:port of"
            f" process 0), {_NUMBERS[0]} and {_NUMBERS[1]} (0, 1, ...)"
        ) from error


def is_first() -> bool:
    """Whether this is the process that writes and prints."""
    return jax.process_index() == 0


@contextmanager
def only_first_prints() -> Iterator[None]:
    """On all others standard output goes nowhere."""
    if is_first():
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield


def any_process(flag: bool) -> bool:
    """Whether the flag is set on one of the processes; all of them must ask."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def first_alone(action: Callable[[], object]) -> None:
    """Runs `action` on the first process while the others wait; what it raises ends them too.

    Raises:
      OtherProcessError: on the others, if `action` raised.
    """
    error = None
    if is_first():
        try:
            action()
        except Exception as raised:
            error = raised
    failed = any_process(error is not None)
    if error is not None:
        raise error
    if failed:
        raise OtherProcessError("the first process ended the run; its message says why")
