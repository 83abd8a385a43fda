"""All six optimizers with and without Layca on mnist5k-mlp: a table of the README.

    python -m experiments.pairs

trains what `results/laptop/pairs.jsonl` lacks (ten minutes on two cores if it is empty) and prints the table.
Learning rates without Layca are chosen among five by test accuracy on seeds 10 and 11; seeds 0, 1 and 2,
which the table shows, play no part in the choice. With Layca nothing is chosen: the rates are the paper's.
"""

import sys

import numpy as np

from experiments.log import RESULTS, Line, Log, key
from experiments.results import TABLE, Results
from experiments.runs import Training, training
from experiments.work import finish
from training.errors import exit_code

SEEDS = (0, 1, 2)
CHOICE_SEEDS = (10, 11)
# Powers of 3 around the best for the SGD family, half decades for adaptive methods.
GRIDS = {
    "sgd": [3.0**i for i in range(-2, 3)],
    "momentum": [3.0**i for i in range(-4, 1)],
    "rmsprop": [3e-4, 1e-3, 3e-3, 1e-2, 3e-2],
    "adagrad": [3e-3, 1e-2, 3e-2, 1e-1, 3e-1],
    "adam": [3e-4, 1e-3, 3e-3, 1e-2, 3e-2],
    "sgd_amom": [3.0**i for i in range(-2, 3)],
}


class Pairs(Results):
    """The runs of this table. The first lines of its log name their run by these fields alone."""

    FIELDS = ("task", "optimizer", "layca", "learning_rate", "seed")

    def _read(self) -> dict[str, Line]:
        return Log(self.preset, TABLE, self.folder).read(self._name)

    def _name(self, line: Line) -> str:
        config = line.get("config", line)
        return key(training(**{field: config[field] for field in self.FIELDS}).numbers())


def read() -> Pairs:
    return Pairs("laptop", RESULTS)


def alone(optimizer: str, rate: float, seeds: tuple[int, ...]) -> list[Training]:
    return [training(optimizer=optimizer, layca=False, learning_rate=rate, seed=seed) for seed in seeds]


def choice(optimizer: str) -> list[Training]:
    """The runs that choose the best learning rate without Layca."""
    return [run for rate in GRIDS[optimizer] for run in alone(optimizer, rate, CHOICE_SEEDS)]


def columns(optimizer: str, results: Results) -> list[list[Training]]:
    """The runs behind each column of the table: with Layca, alone, alone at the rate that was chosen."""
    means = {
        rate: np.mean(results.accuracies(alone(optimizer, rate, CHOICE_SEEDS))) for rate in GRIDS[optimizer]
    }
    best = max(means, key=means.__getitem__)
    sides = [
        [training(optimizer=optimizer, layca=layca, seed=seed) for seed in SEEDS] for layca in (True, False)
    ]
    return [*sides, alone(optimizer, best, SEEDS)]


def table(results: Results) -> str:
    """Mean and standard deviation of the test accuracy over seeds; in brackets the learning rate."""
    rows = ["| optimizer | with Layca | alone | alone, best of five rates |", "|---|---|---|---|"]
    for optimizer in GRIDS:
        cells = [
            f"{results.spread(runs)} ({runs[0].config.learning_rate:.3g})"
            for runs in columns(optimizer, results)
        ]
        rows.append(f"| {' | '.join([optimizer, *cells])} |")
    return "\n".join(rows)


def main() -> None:
    log = Log("laptop", TABLE)
    finish(log, [run for optimizer in GRIDS for run in choice(optimizer)], read())
    found = read()
    finish(log, [run for name in GRIDS for side in columns(name, found) for run in side], found)
    print(table(read()))


if __name__ == "__main__":
    sys.exit(exit_code("python -m experiments.pairs", main))
