"""Layca against SGD at the best of ten learning rates, on every embedded task: a table of the README.

    python -m experiments.tasks

trains what the logs lack (forty minutes on two cores if they are empty) and prints the table. Layca has its
3^-3 everywhere. SGD's rate is Figure 7's: the best on held-out images, on other seeds than the table's.
"""

import sys

from experiments.fig7 import candidates, choice
from experiments.log import Log
from experiments.results import Results
from experiments.runs import Training, training
from experiments.work import finish
from training.errors import exit_code

TASKS = ("mnist5k-mlp", "mnist5k-vgg", "mnist5k-resnet")
SEEDS = (0, 1, 2)


def runs(task: str, results: Results) -> list[list[Training]]:
    """With Layca, and of SGD at the rate that was chosen."""
    sides = [{}, {"layca": False, "learning_rate": 3.0 ** choice(task, results)}]
    return [[training(task=task, seed=seed, **side) for seed in SEEDS] for side in sides]


def table(results: Results) -> str:
    """Mean and standard deviation of the test accuracy over seeds; in brackets SGD's learning rate."""
    rows = ["| task | Layca | SGD, best of ten rates |", "|---|---|---|"]
    for task in TASKS:
        layca, sgd = runs(task, results)
        rate = sgd[0].config.learning_rate
        rows.append(f"| {task} | {results.spread(layca)} | {results.spread(sgd)} ({rate:.3g}) |")
    return "\n".join(rows)


def main() -> None:
    choices = [run for task in TASKS for seeds in candidates(task) for run in seeds]
    finish(Log("laptop", "fig7"), choices, Results("laptop"))
    chosen = Results("laptop")
    finish(
        Log("laptop", "tasks"), [run for task in TASKS for side in runs(task, chosen) for run in side], chosen
    )
    print(table(Results("laptop")))


if __name__ == "__main__":
    sys.exit(exit_code("python -m experiments.tasks", main))
