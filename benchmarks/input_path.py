"""Measures the path from a prepared dataset to batches on the device: time to load, and throughput.

    python -m benchmarks.input_path

It takes two minutes on two cores, 2 GB of memory and 2 GB of temporary disk space. It needs Fashion-MNIST,
from the network or from Debian's package `dataset-fashion-mnist`.
"""

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import data
from benchmarks.timing import interleaved, machine, ratio
from data import Dataset, Scale, cache
from data.augment import augment
from data.catalog import find_entry

BATCH_SIZE = 128
ROUNDS = 25
NUM_IMAGES = 10_000

Stage = Callable[[jax.Array, jax.Array, Scale], jax.Array]

# What to do with a gathered batch; the first is the baseline.
STAGES: dict[str, Stage] = {
    "gather": lambda key, images, scale: images,
    "gather, standardise": lambda key, images, scale: data.standardise(images, scale),
    "gather, flip, standardise": lambda key, images, scale: data.standardise(
        augment(key, images, flip=True, max_shift=0), scale
    ),
    "gather, flip, shift by up to 4, standardise": lambda key, images, scale: data.standardise(
        augment(key, images, flip=True, max_shift=4), scale
    ),
}


def loading_table() -> str:
    """Measures the seconds until a dataset's arrays are in memory: the fastest of seven loads, the median."""
    rows = [
        "| dataset | classes x images, training + test | preparing | loading, fastest | median |",
        "|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):
            fashion = data.load("fashion_mnist", folder)
        preparing = f"{time.perf_counter() - started:.0f} s"
        rows.append(loading_row("fashion_mnist", fashion, preparing, folder))
        for name in ("cifar10", "tiny_imagenet"):
            random = random_dataset(name)
            cache.write(Path(folder) / name / "arrays.npz", random)
            rows.append(loading_row(name, random, "random bytes", folder))
    return "\n".join(rows)


def loading_row(name: str, dataset: Dataset, preparing: str, folder: str) -> str:
    counts = [np.bincount(labels) for labels in (dataset.train_labels, dataset.test_labels)]
    assert all(np.ptp(count) == 0 for count in counts)
    images = " + ".join(f"{len(count)} x {count[0]:,}" for count in counts)
    times = interleaved({name: lambda: data.load(name, folder)}, rounds=7)[name]
    return f"| {name} | {images} | {preparing} | {times.min():.2f} s | {np.median(times):.2f} s |"


def random_dataset(name: str) -> Dataset:
    """Makes as many random images per class as the real dataset has."""
    entry = find_entry(name)
    rng = np.random.default_rng(0)
    train_labels, test_labels = (
        np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        for counts in (entry.train_counts, entry.test_counts)
    )
    train_images, test_images = (
        rng.integers(0, 256, (len(labels), *entry.image_shape), np.uint8)
        for labels in (train_labels, test_labels)
    )
    scale = Scale(np.float32(127.5), np.float32(74))
    return Dataset(train_images, train_labels, test_images, test_labels, scale)


def throughput_table() -> str:
    """Measures images per second for every stage, and how long it takes compared with the gather alone."""
    rows = ["| images | input path | images/s, median | time against gather alone |", "|---|---|---|---|"]
    for shape in ((28, 28, 1), (32, 32, 3), (64, 64, 3)):
        images = jax.random.bits(jax.random.key(0), (NUM_IMAGES, *shape), jnp.uint8)
        steps = NUM_IMAGES // BATCH_SIZE
        epochs = {
            name: partial(jax.jit(partial(epoch, stage)), images, jax.random.key(1))
            for name, stage in STAGES.items()
        }
        times = interleaved(epochs, ROUNDS)
        for name in STAGES:
            speed = steps * BATCH_SIZE / np.median(times[name])
            rows.append(
                f"| {' x '.join(map(str, shape))} | {name} | {speed:,.0f} | {ratio(times, name, 'gather')} |"
            )
    return "\n".join(rows)


def epoch(stage: Stage, images: jax.Array, key: jax.Array) -> jax.Array:
    """Makes all batches of an epoch in a loop, and returns the last one."""
    steps = len(images) // BATCH_SIZE
    order = jax.random.permutation(key, len(images))[: steps * BATCH_SIZE].reshape(steps, BATCH_SIZE)
    scale = Scale(*jnp.array([127.5, 74.0]))

    def batch(step: jax.Array) -> jax.Array:
        return stage(jax.random.fold_in(key, step), images[order[step]], scale)

    return jax.lax.fori_loop(1, steps, lambda step, _: batch(step), batch(jnp.array(0)))


def main() -> None:
    print(f"{machine()}; batches of {BATCH_SIZE}, {ROUNDS} rounds\n")
    print(loading_table())
    print()
    print(throughput_table())


if __name__ == "__main__":
    main()
