"""Measures Layca's best learning rate by number of steps and batch size, on SGD, momentum, Adam and Muon.

The paper has no figure of this; it uses 3^-3 and 3^-5 for all lengths. Written down before the runs:

- Target: the rate with the best test accuracy, or the lowest loss on held-out text, averaged over two seeds;
  between powers of 3 by the parabola through the best and its neighbours. Test images may choose, because no
  accuracy is reported from these runs.
- Rule: for each base and network, the line through the powers of 3 against log3 of the number of steps. If
  its slope is -1/2, the angle per step times the root of the number of steps is constant; if it is 0, the
  angle is.

Changed later, to save time: the VGG and the MLP's longest runs have one seed.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from experiments.curves import titled_panels
from experiments.experiment import Experiment
from experiments.results import Results
from experiments.runs import Run
from experiments.variants import Language, Variant, variant

BASES = ("sgd", "momentum", "adam", "muon")
POWERS = range(-6, 0)
SEEDS = (10, 11)
TEXT_STEPS = (100, 400, 1600, 6400)


class Length(NamedTuple):
    """The length of runs on a task, and their batch size."""

    epochs: int
    batch_size: int


# 8 steps per epoch on MNIST-5k at a batch of 128: 96, 400, 1,600 and 6,400 steps; then 400 at other batches.
LENGTHS = {
    "mnist5k-mlp": (Length(12, 128), Length(50, 128), Length(200, 128), Length(800, 128)),
    "cifar16-vgg10": (Length(12, 32), Length(50, 32)),
}
BATCHES = {"mnist5k-mlp": (Length(12, 32), Length(200, 512))}
TASKS = {"laptop": ("mnist5k-mlp",), "small": ("cifar16-vgg10",)}


def grid(task: str, base: str, length: Length) -> list[list[Variant]]:
    """Returns the runs of all seeds by power; runs that take minutes have one seed."""
    seeds = SEEDS if task == "mnist5k-mlp" and length.epochs <= 200 else SEEDS[:1]
    flags = length._asdict()
    return [[variant(task, base, power, seed, **flags) for seed in seeds] for power in POWERS]


def on_text(base: str, steps: int) -> Language:
    return Language(base, steps, tuple(POWERS), SEEDS)


def runs(preset: str) -> list[Run]:
    """Returns all runs, short ones first."""
    texts = [on_text(base, steps) for steps in TEXT_STEPS for base in BASES] if preset == "laptop" else []
    found: list[Run] = [*texts]
    for task in TASKS[preset]:
        for length in sorted((*LENGTHS[task], *BATCHES.get(task, ()))):
            found += [run for base in BASES for runs in grid(task, base, length) for run in runs]
    return found


def peak(scores: Sequence[float] | np.ndarray) -> float:
    """Returns the power where a parabola through the best score and its neighbours peaks; NaN at an end."""
    i = int(np.argmax(scores))
    if i in (0, len(scores) - 1):
        return np.nan
    left, middle, right = scores[i - 1 : i + 2]
    return POWERS[i] + (left - right) / (2 * (left - 2 * middle + right))


def best_on_task(task: str, base: str, length: Length, results: Results) -> float:
    scores = [results.accuracies(runs) for runs in grid(task, base, length)]
    return peak(np.nan_to_num(np.mean(scores, axis=1)))


def best_on_text(base: str, steps: int, results: Results) -> float:
    losses = np.array(results.of(on_text(base, steps))["loss"], float).mean(axis=1)
    return peak(-np.where(np.isfinite(losses), losses, 10.0))


def steps_of(task: str, length: Length) -> int:
    """Returns the number of steps of a run."""
    return grid(task, BASES[0], length)[0][0].steps()


def points(preset: str, results: Results) -> dict[str, dict[str, tuple[list[int], list[float]]]]:
    """Returns, by network and base, the numbers of steps whose runs are logged, and the best powers."""
    found: dict[str, Any] = {task: {} for task in TASKS[preset]}
    for task, by_base in found.items():
        for base in BASES:
            done = [length for length in LENGTHS[task] if is_logged(task, base, length, results)]
            best = [best_on_task(task, base, length, results) for length in done]
            by_base[base] = [steps_of(task, length) for length in done], best
    if preset == "laptop":
        found["text"] = {}
        for base in BASES:
            done = [steps for steps in TEXT_STEPS if results.has(on_text(base, steps))]
            found["text"][base] = done, [best_on_text(base, steps, results) for steps in done]
    return found


def is_logged(task: str, base: str, length: Length, results: Results) -> bool:
    return all(results.has(run) for runs in grid(task, base, length) for run in runs)


def draw(preset: str, results: Results) -> Figure:
    """Draws the lengths whose runs are all logged."""
    found = points(preset, results)
    if not any(steps for by_base in found.values() for steps, _ in by_base.values()):
        results.of(runs(preset)[0])  # names the missing run
    figure, axes = titled_panels(found, "best rate, power of 3", xscale="log", xlabel="steps")
    for axis, (network, by_base) in zip(axes, found.items(), strict=True):
        batches = list(zip("v^", BATCHES.get(network, ()), strict=False))
        for i, (base, (steps, powers)) in enumerate(by_base.items()):
            color = f"C{i}"
            (dots,) = axis.plot(steps, powers, "o", color=color, label=base)
            inside = np.isfinite(powers)
            if inside.sum() > 1:
                logs = np.log(steps) / np.log(3)
                slope, start = np.polyfit(logs[inside], np.array(powers)[inside], 1)
                axis.plot(steps, slope * logs + start, color=color, lw=1)
                dots.set_label(f"{base}, slope {slope:.2f}")
            for marker, length in batches:
                if is_logged(network, base, length, results):
                    place = steps_of(network, length), best_on_task(network, base, length, results)
                    axis.plot(*place, marker, color=color)
        for marker, length in batches:
            axis.plot([], [], marker, color="gray", label=f"batch {length.batch_size}")
        narrow = {"columnspacing": 1, "handletextpad": 0.2, "frameon": False}
        axis.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.1), ncols=2, **narrow)
    return figure


RATES = Experiment("rates", log="rates", runs=runs, draw=draw, presets=tuple(TASKS))
