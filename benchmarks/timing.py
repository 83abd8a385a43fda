"""Times functions to compare them with each other, also on a machine that is not idle."""

import os
import platform
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version

import jax
import numpy as np

Times = Mapping[str, np.ndarray]


def interleaved(functions: Mapping[str, Callable[[], object]], rounds: int, seed: int = 0) -> Times:
    """Measures the seconds that each function takes in each round, `(rounds,)`.

    Each is called once before the clock starts, and then once per round, in a random order that changes every
    round, so that other load on the machine slows down all of them. Their results are waited for.
    """
    for function in functions.values():
        jax.block_until_ready(function())
    rng = np.random.default_rng(seed)
    times = {name: np.empty(rounds) for name in functions}
    for i in range(rounds):
        for name in rng.permutation(list(functions)):
            started = time.perf_counter()
            jax.block_until_ready(functions[name]())
            times[name][i] = time.perf_counter() - started
    return times


def ratio(times: Times, name: str, baseline: str) -> str:
    """Says how many times as long as `baseline` `name` takes: the median over rounds, and the quartiles."""
    ratios = times[name] / times[baseline]
    low, median, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return f"{median:.2f} ({low:.2f}-{high:.2f})"


def machine() -> str:
    """Describes the machine in one line: cores, device, versions."""
    packages = ", ".join(f"{package} {version(package)}" for package in ("jax", "numpy"))
    device = jax.devices()[0].device_kind
    return f"{os.cpu_count()} cores, device {device}, Python {platform.python_version()}, {packages}"
