"""Times of functions that are compared with each other, fair on a machine that does other things too."""

import os
import platform
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version

import jax
import numpy as np

Times = Mapping[str, np.ndarray]


def interleaved(functions: Mapping[str, Callable[[], object]], rounds: int, seed: int = 0) -> Times:
    """Seconds that each function took in each round, `(rounds,)`.

    All are called once before the clock runs, and then once a round in an order that is drawn anew, so that
    whatever slows the machine down for a while slows all of them. What they return is waited for.
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
    """How many times as long `name` takes as `baseline`: median over rounds, in brackets the quartiles."""
    ratios = times[name] / times[baseline]
    low, median, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return f"{median:.2f} ({low:.2f}-{high:.2f})"


def machine() -> str:
    """One line on what ran: cores, device, versions."""
    packages = ", ".join(f"{package} {version(package)}" for package in ("jax", "numpy"))
    device = jax.devices()[0].device_kind
    return f"{os.cpu_count()} cores, device {device}, Python {platform.python_version()}, {packages}"
