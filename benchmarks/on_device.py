"""The measurements of `benchmarks.accelerator`, as small units in the order of their importance.

A unit is a name and a function that returns the record to keep, a dictionary of JSON values.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import train
from benchmarks.loop import stepper
from benchmarks.optimizers import OPTIMIZERS, Shapes, shapes_of, steppers, transformer_shapes
from benchmarks.timing import interleaved, machine
from data import Scale
from layca_optax import layca, track_rotation
from training.config import Flags
from training.optimizer import make_optimizer
from training.parallel import all_devices
from training.tasks import TASKS

Unit = tuple[str, Callable[[], Mapping[str, Any]]]
RATE = 3.0**-3
# How many arrays of the parameters' size a step must at least read or write: parameters (twice), gradients,
# optimizer state. Layca reads parameters and gradients once more, since the step's length depends on all.
TRAFFIC = {"sgd": 3, "momentum": 5, "adam": 7, "layca": 5}
# Largest relative error of an update, for random steps and for steps nearly along the weights.
BOUNDS = {
    "float32": (1e-5, 1e-3),
    "bfloat16": (4e-3, 4e-3),
    "float16": (1e-3, 1e-3),
    "float64": (1e-12, 1e-9),
}


# Accuracy.


def turned(w: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Computes the update of Algorithm 1 for the gradient `s`, in float64."""
    w, s = w.astype(np.float64), s.astype(np.float64)
    s = s / np.abs(s).max()
    t = s - np.sum(s * w) / np.sum(w * w) * w
    new = w - RATE * np.linalg.norm(w) * t / np.linalg.norm(t)
    return new * np.linalg.norm(w) / np.linalg.norm(new) - w


def accuracy(name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """Measures errors of an update, relative to its norm; `fails` names those that are too large."""
    found: dict[str, Any] = {}
    with jax.enable_x64(name == "float64"):
        keys = jax.random.split(jax.random.key(0))
        w, s = (jax.random.normal(key, shape, jnp.float32).astype(name) for key in keys)
        tiny = 1e-6 if name == "float16" else 1e-30
        # If less than four epsilons of a step are across the weights, it has no direction.
        along = w + s / (10 if name == "bfloat16" else 100)
        steps = {"random": s, "tiny": s * tiny, "huge": s / max(tiny, 1e-4), "along": along}
        optimizer = layca(RATE)
        update = jax.jit(lambda s, w: optimizer.update(s, optimizer.init(w), w)[0])
        for case, step in steps.items():
            exact = turned(np.asarray(w), np.asarray(step))
            error = np.asarray(update(step, w)).astype(np.float64) - exact
            found[case] = float(np.linalg.norm(error) / np.linalg.norm(exact))
    bounds = {case: BOUNDS[name][case == "along"] for case in steps}
    return {**found, "fails": [case for case in steps if not found[case] <= bounds[case]]}


def accuracy_units(smoke: bool) -> Iterator[Unit]:
    shapes = [(64, 64)] if smoke else [(3, 3, 256, 256), (784, 10), (8192, 4096)]
    for name in BOUNDS:
        for shape in shapes:
            yield f"{name} {shape}", partial(accuracy, name, shape)


# Optimizer steps.


def seconds_per_call(call: Callable[[], Any], budget: float = 0.1) -> float:
    """Times calls that do not wait for each other: the median over five rounds of `budget` seconds."""
    jax.block_until_ready(call())
    started = time.perf_counter()
    jax.block_until_ready(call())
    calls = int(np.clip(budget / max(time.perf_counter() - started, 1e-6), 1, 200))

    def many() -> Any:
        for _ in range(calls - 1):
            call()
        return call()

    return float(np.median(interleaved({"": many}, rounds=5)[""])) / calls


def copy_speed(smoke: bool) -> dict[str, Any]:
    """Measures the bytes per second that adding 1 to an array reads and writes, as an upper bound."""
    array = jnp.zeros((2**22 if smoke else 2**29,), jnp.float32)
    add = jax.jit(lambda x: x + 1)
    return {"machine": machine(), "GB/s": 2 * array.nbytes / seconds_per_call(lambda: add(array)) / 1e9}


def optimizer_step(shapes: Shapes, dtype: Any, name: str) -> dict[str, Any]:
    made = steppers(shapes, dtype, [name])[name]
    seconds = seconds_per_call(made)
    moved = sum(int(np.prod(shape)) for shape in shapes) * jnp.dtype(dtype).itemsize * TRAFFIC.get(name, 0)
    speed = {"GB/s": moved / seconds / 1e9} if moved else {}
    return {"ms": 1e3 * seconds, **speed, "first call, s": made.first_call}


def optimizer_units(smoke: bool) -> Iterator[Unit]:
    yield "copy", partial(copy_speed, smoke)
    names = list(OPTIMIZERS)
    telling = ["sgd", "layca", "layca, track_rotation", "adam"]
    sizes: dict[str, Shapes] = {
        f"{million:,} M": [(million * 64, 1024)] * 16 for million in (100, 1000, 10, 1, 300, 30, 3)
    }
    trees: dict[str, Shapes] = {
        **dict(list(sizes.items())[:2]),
        "ResNet-32": shapes_of("c100-resnet"),
        "c10-cnn1": shapes_of("c10-cnn1"),
        "MLP": shapes_of("mnist-mlp"),
        "transformer": transformer_shapes(),
    }
    if smoke:
        telling, names, sizes = telling[:2], telling[:2], {}
        trees = dict[str, Shapes](small=[(64, 64)] * 3)
    rest = {tree: shapes for tree, shapes in sizes.items() if tree not in trees}
    others = [name for name in names if name not in telling]
    for part, chosen in ((trees, telling), (trees, others), (rest, telling), (rest, others)):
        for dtype in (jnp.float32, jnp.bfloat16):
            for tree, shapes in part.items():
                for name in chosen:
                    unit = f"{tree} | {jnp.dtype(dtype).name} | {name}"
                    yield unit, partial(optimizer_step, shapes, dtype, name)


# Training.


def tracked(*arguments: Any) -> optax.GradientTransformationExtraArgs:
    """Does what `make_optimizer` does, with `track_rotation` added."""
    return optax.chain(make_optimizer(*arguments), track_rotation())


SIDES: Mapping[str, tuple[bool, Callable[..., Any]]] = {
    "layca": (True, make_optimizer),
    "sgd": (False, make_optimizer),
    "layca, track_rotation": (True, tracked),
}


class Epochs:
    """Epochs of `train.py` on random images; each call trains one epoch, of one run or of one run per seed.

    Attributes:
      images: number of images that a call trains on.
      steps: number of steps that a call takes.
    """

    def __init__(self, task: str, side: str = "layca", seeds: int | None = None) -> None:
        with_layca, make = SIDES[side]
        config, devices = Flags(task=task, layca=with_layca).resolved(), all_devices()
        rows = TASKS[task].num_training_images(config.validation)
        program, hparams = train.compile_program(config, devices, make), config.hparams()
        images = jax.random.bits(jax.random.key(0), (rows, *TASKS[task].input_shape), jnp.uint8)
        part = tuple(jax.device_put(array, devices.rows) for array in (images, jnp.arange(rows) % 10))
        scale: Any = Scale(np.float32(127), np.float32(74))
        seed: Any = np.uint32(0)
        init, epoch = program.init, program.train_epoch
        if seeds is not None:
            seed = jnp.arange(seeds, dtype=jnp.uint32)
            init = jax.vmap(init, (0, None))
            epoch = jax.jit(jax.vmap(epoch, (0, None, None, 0, None)), donate_argnums=0)
        self.steps = rows // config.batch_size
        self.images = self.steps * config.batch_size * (seeds or 1)
        self._state = init(seed, hparams)
        self._epoch = lambda state: epoch(state, part, scale, seed, hparams)

    def __call__(self) -> Any:
        self._state, metrics = self._epoch(self._state)
        return metrics


def epoch(
    task: str, side: str = "layca", seeds: int | None = None, precision: str | None = None
) -> dict[str, Any]:
    with jax.default_matmul_precision(precision):
        epochs = Epochs(task, side, seeds)
        started = time.perf_counter()
        jax.block_until_ready(epochs())
        first = time.perf_counter() - started
        seconds = seconds_per_call(epochs, budget=1.0)
    return {
        "images/s": epochs.images / seconds,
        "ms per step": 1e3 * seconds / epochs.steps,
        "first call, s": first,
        "minutes per paper run, training alone": TASKS[task].epochs * seconds / 60,
    }


def loop(task: str) -> dict[str, Any]:
    """Measures single steps called from Python, on a ready batch."""
    return {"ms per step": 1e3 * seconds_per_call(stepper(task, layca()), budget=1.0)}


def processes(task: str, count: int, seconds: float) -> dict[str, Any]:
    """Measures several processes that train on one device at the same time, after all have compiled."""
    command = [sys.executable, "-m", "benchmarks.on_device", task, str(seconds)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    started: list[Any] = [subprocess.Popen(command, **pipes) for _ in range(count)]
    for process in started:
        process.stdout.readline()
    for process in started:
        process.stdin.close()
    return {"images/s": sum(float(process.stdout.read()) for process in started)}


def one_of_several(task: str, seconds: float) -> None:
    """Prints `ready` when compiled, trains once standard input is closed, then prints images per second."""
    epochs = Epochs(task)
    jax.block_until_ready(epochs())
    print("ready", flush=True)
    sys.stdin.read()
    started, images = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        jax.block_until_ready(epochs())
        images += epochs.images
    print(images / (time.perf_counter() - started))


def training_units(smoke: bool) -> Iterator[Unit]:
    if smoke:
        task = "mnist5k-mlp"
        yield f"{task} | layca", partial(epoch, task)
        yield f"{task} | layca, 2 processes", partial(processes, task, 2, 1.0)
        yield f"{task} | layca, steps from Python", partial(loop, task)
        yield f"{task} | layca, vmap over 2 seeds", partial(epoch, task, seeds=2)
        return
    task, others = "c10-cnn1", ("c100-resnet", "c10-cnn2", "tiny-cnn")
    for side in SIDES:
        yield f"{task} | {side}", partial(epoch, task, side)
    yield f"{task} | layca, steps from Python", partial(loop, task)
    for count in (2, 4):
        yield f"{task} | layca, {count} processes", partial(processes, task, count, 6.0)
        yield f"{task} | layca, vmap over {count} seeds", partial(epoch, task, seeds=count)
    for other in others:
        yield f"{other} | layca", partial(epoch, other)
    yield f"{task} | layca, products in float32", partial(epoch, task, precision="highest")
    yield f"{task} | layca, vmap over 8 seeds", partial(epoch, task, seeds=8)
    for other in others:
        for side in ("sgd", "layca, track_rotation"):
            yield f"{other} | {side}", partial(epoch, other, side)


UNITS: Mapping[str, Callable[[bool], Iterator[Unit]]] = {
    "a": accuracy_units,
    "b": optimizer_units,
    "c": training_units,
}

if __name__ == "__main__":
    one_of_several(sys.argv[1], float(sys.argv[2]))
