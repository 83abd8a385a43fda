"""Measures what Layca and its monitoring add to a training step, and the cost of the epoch loop and program.

    python -m benchmarks.loop

It takes three minutes on two idle cores.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import train
from benchmarks.timing import interleaved, machine, ratio
from data import standardise
from layca_optax import layca, track_rotation
from models import pure
from training.config import Flags
from training.optimizer import make_optimizer
from training.parallel import all_devices
from training.step import train_step
from training.tasks import TASKS

BATCH_SIZE = 128
OPTIMIZERS = {
    "sgd": lambda: optax.sgd(1 / 27),
    "layca": layca,
    "layca, track_rotation": lambda: optax.chain(layca(), track_rotation()),
}


def stepper(task: str, optimizer: optax.GradientTransformationExtraArgs) -> Callable[[], Any]:
    """Returns a function that takes one training step of a task's network, on random images."""
    model, shape = pure(TASKS[task].build), TASKS[task].input_shape
    params, model_state = jax.jit(model.init)(jax.random.key(0))
    state = train.TrainState(jnp.zeros([], jnp.int32), params, model_state, jax.jit(optimizer.init)(params))
    images = jax.random.normal(jax.random.key(1), (BATCH_SIZE, *shape))
    labels = jnp.arange(BATCH_SIZE) % 10
    step = jax.jit(partial(train_step, model, optimizer), donate_argnums=0)

    def one() -> Any:
        nonlocal state
        state, metrics = step(state, images, labels)
        return metrics

    return one


def steps_table() -> None:
    print(f"| network, batch of {BATCH_SIZE} | optimizer | ms per step | against sgd |\n|---|---|---|---|")
    for task, rounds in (("c10-cnn1", 15), ("mnist-mlp", 101)):
        steps = {name: stepper(task, make()) for name, make in OPTIMIZERS.items()}
        times = interleaved(steps, rounds)
        for name in OPTIMIZERS:
            row = f"| {task} | {name} | {1e3 * np.median(times[name]):.1f} | {ratio(times, name, 'sgd')} |"
            print(row, flush=True)


def epoch_functions(task: str) -> dict[str, Callable[[], Any]]:
    """Returns functions for an epoch of `train.py` and for a bare loop over its steps on ready batches."""
    config = Flags(task=task).resolved()
    hparams, seed, size = config.hparams(), np.uint32(0), config.batch_size
    program = train.compile_program(config, all_devices())
    data = TASKS[task].load(seed=0, data_dir=None)
    images, labels = jnp.asarray(data.train_images), jnp.asarray(data.train_labels)
    optimizer = make_optimizer(config.optimizer, config.layca, hparams, program.depths, lambda count: 1.0)
    step = jax.jit(partial(train_step, pure(TASKS[task].build), optimizer), donate_argnums=0)
    starts = range(0, len(labels) - size + 1, size)
    batches = [(standardise(images[i : i + size], data.scale), labels[i : i + size]) for i in starts]
    states = {name: program.init(seed, hparams) for name in ("bare", "epoch")}

    def bare() -> Any:
        for batch in batches:
            states["bare"], _ = step(states["bare"], *batch)
        return states["bare"]

    def epoch() -> Any:
        states["epoch"], _ = program.train_epoch(states["epoch"], (images, labels), data.scale, seed, hparams)
        return states["epoch"]

    return {"bare": bare, "epoch": epoch}


def epochs_table() -> None:
    print("| task | bare loop, ms | epoch of `train.py` against it |\n|---|---|---|")
    for task, rounds in (("mnist5k-mlp", 31), ("mnist5k-vgg", 9)):
        times = interleaved(epoch_functions(task), rounds)
        milliseconds = 1e3 * np.median(times["bare"])
        print(f"| {task} | {milliseconds:.0f} | {ratio(times, 'epoch', 'bare')} |", flush=True)


def program_table() -> None:
    """Measures the whole program, in a separate process."""
    print("| command | seconds | peak memory, MB |\n|---|---|---|")
    for flags in (["--epochs", "1"], [], ["--no-layca"]):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "train.py", *flags, "--out", str(Path(folder) / "run")]
            started = time.perf_counter()
            process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=Path(train.__file__).parent
            )
            _, _, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - started
        shown = " ".join(["python train.py", *flags])
        print(f"| `{shown}` | {seconds:.1f} | {usage.ru_maxrss / 1024:.0f} |", flush=True)


def sweep_table() -> None:
    """Measures twenty learning rates in one process, which compiles once."""
    seconds = []
    data = TASKS["mnist5k-mlp"].load(seed=0, data_dir=None)
    jax.clear_caches()
    for rate in np.geomspace(3.0**-5, 1, 20):
        config = Flags(task="mnist5k-mlp", learning_rate=float(rate), epochs=10).resolved()
        started = time.perf_counter()
        for _ in train.fit(config, data):
            pass
        seconds.append(time.perf_counter() - started)
    print(
        "| learning rates, 10 epochs each | first, s | median of the others, s | all, s |\n|---|---|---|---|"
    )
    print(f"| 20 | {seconds[0]:.1f} | {np.median(seconds[1:]):.2f} | {sum(seconds):.1f} |")


if __name__ == "__main__":
    print(machine())
    for table in (steps_table, epochs_table, program_table, sweep_table):
        print()
        table()
