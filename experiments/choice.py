"""Chooses a learning rate by the accuracy on held-out training images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import train
from experiments.results import Results
from experiments.runs import Training

# 1,000 held-out images are enough for one seed to choose; fewer need three.
SEEDS, ENOUGH_IMAGES = (10, 11, 12), 1000


def seeds_of(task: str) -> tuple[int, ...]:
    """Returns the seeds of the runs that choose a rate; none of them is used to compare methods."""
    row = train.TASKS[task]
    held_out = row.train_size - row.num_training_images(validation=True)
    return SEEDS[:1] if held_out >= ENOUGH_IMAGES else SEEDS


def final(line: Mapping[str, Any], name: str) -> float:
    """Returns an accuracy after the last epoch, or after the best one if the task tests its best epoch."""
    held_out = [accuracy or 0.0 for accuracy in line["curves"]["validation_accuracy"]]
    best_epoch = train.TASKS[line["config"]["task"]].validation
    return line["curves"][name][int(np.argmax(held_out)) if best_epoch else -1] or 0.0


def accuracies(name: str, table: Sequence[Sequence[Training]], results: Results) -> np.ndarray:
    """Returns final accuracies, of shape `(rates, seeds)`, for the seeds that are logged at all rates.

    Raises:
      MissingRunError: no seed is logged at all rates.
    """
    return np.array([[final(line, name) for line in seed] for seed in results.lines(table)]).T


def best(scores: np.ndarray) -> int:
    """Returns the index of the highest score; among equal ones, that with the better neighbours."""
    found = scores.round(6)
    neighbours = np.convolve(np.pad(found, 1, mode="edge"), [1, 0, 1], mode="valid").round(6)
    return max(range(len(found)), key=lambda i: (found[i], neighbours[i]))


def choose(powers: Sequence[int], table: Sequence[Sequence[Training]], results: Results) -> int:
    """Returns the power whose runs, a row of the table, have the best mean accuracy on held-out images."""
    return powers[best(accuracies("validation_accuracy", table, results).mean(axis=1))]
