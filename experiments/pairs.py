"""All six optimizers with and without Layca on mnist5k-mlp: the README's table.

    python -m experiments.pairs

trains what `results/laptop/pairs.jsonl` lacks (ten minutes on two cores if it is empty) and prints the table.
Learning rates without Layca are chosen among five by test accuracy on seeds 10 and 11; seeds 0, 1 and 2,
which the table shows, play no part in the choice. With Layca nothing is chosen: the rates are the paper's.
"""

import json
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
from tqdm import tqdm

import train
from training.config import Flags

RESULTS = Path(__file__).parent / "results" / "laptop" / "pairs.jsonl"
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

# Test accuracies by what makes two runs the same run: optimizer, whether with Layca, learning rate, seed.
Key = tuple[str, bool, float, int]
Accuracies = dict[Key, float]


def read() -> Accuracies:
    lines = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    return {
        (line["optimizer"], line["layca"], line["learning_rate"], line["seed"]): line["test_accuracy"]
        for line in lines
    }


def choice(optimizer: str) -> Iterator[Key]:
    """The runs that choose the best learning rate without Layca."""
    for rate in GRIDS[optimizer]:
        for seed in CHOICE_SEEDS:
            yield optimizer, False, rate, seed


def columns(optimizer: str, done: Mapping[Key, float]) -> list[list[Key]]:
    """The runs behind each column of the table: with Layca, alone, alone at the rate that was chosen."""
    means = {
        rate: np.mean([done[optimizer, False, rate, seed] for seed in CHOICE_SEEDS])
        for rate in GRIDS[optimizer]
    }
    best = max(means, key=means.__getitem__)
    with_layca, alone = (Flags(optimizer=optimizer, layca=layca).resolved() for layca in (True, False))
    rates = [(True, with_layca.learning_rate), (False, alone.learning_rate), (False, best)]
    return [[(optimizer, layca, rate, seed) for seed in SEEDS] for layca, rate in rates]


def table(done: Mapping[Key, float]) -> str:
    """Mean and standard deviation of the test accuracy over seeds; in brackets the learning rate."""
    rows = ["| optimizer | with Layca | alone | alone, best of five rates |", "|---|---|---|---|"]
    for optimizer in GRIDS:
        cells = [optimizer]
        for runs in columns(optimizer, done):
            scores = [done[run] for run in runs]
            cells.append(f"{np.mean(scores):.3f} ± {np.std(scores, ddof=1):.3f} ({runs[0][2]:.3g})")
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def run(key: Key) -> float:
    """Trains once, appends a line to the results, returns the test accuracy."""
    optimizer, layca, rate, seed = key
    config = Flags(optimizer=optimizer, layca=layca, learning_rate=rate, seed=seed).resolved()
    data = train.TASKS[config.task].load(seed=seed)
    *_, (_, last) = train.fit(config, data, evaluate_every=config.epochs)
    line = {
        "task": config.task,
        "optimizer": optimizer,
        "layca": layca,
        "learning_rate": rate,
        "seed": seed,
        "test_accuracy": last["test_accuracy"],
        "train_accuracy": last["train_accuracy"],
        "rotation": last["rotation"],
        "device": train.all_devices().describe(),
        "versions": {package: version(package) for package in ("jax", "optax", "flax")},
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")
    return line["test_accuracy"]


def main() -> None:
    done = read()
    for optimizer in tqdm(GRIDS, unit="optimizer"):
        for key in choice(optimizer):
            done[key] = done[key] if key in done else run(key)
        for keys in columns(optimizer, done):
            for key in keys:
                done[key] = done[key] if key in done else run(key)
    print(table(done))


if __name__ == "__main__":
    main()
