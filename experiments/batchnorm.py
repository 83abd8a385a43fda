"""A.2.2: without batch-norm, Layca sometimes cannot rotate all layers far and together.

The paper has no figure of this and names no task. Both presets train the eleven-layer MLP on MNIST-5k with
Layca, with batch-norm and without.
"""

from matplotlib.figure import Figure

from experiments.claims import Claim, Finding
from experiments.curves import compare_rotation, rotation_figure
from experiments.experiment import Experiment
from experiments.presets import Setup
from experiments.results import Results, spread

SIDES = {
    f"Layca {norm}": Setup(task, (0, 1, 2, 3, 4)).runs()
    for norm, task in {"with batch-norm": "mnist5k-mlp", "without": "mnist5k-mlp-no-norm"}.items()
}


def draw(preset: str, results: Results) -> Figure:
    return rotation_figure([{side: runs[0] for side, runs in SIDES.items()}], results)


def norm_keeps_layers_together(results: Results) -> Finding:
    both = list(SIDES.values())
    accuracy = results.paired(both)
    (far, far_without, uneven, uneven_without), margins = compare_rotation(both, results)
    ours = (
        f"mean distance {far:.2f} with and {far_without:.2f} without, deviation over layers {uneven:.2f} and"
        f" {uneven_without:.2f} of the mean, accuracy {spread(accuracy[0])} and {spread(accuracy[1])}"
    )
    return Finding(ours, margins)


def claims(preset: str) -> list[Claim]:
    text = "Without batch-norm Layca turns layers less far and less together"
    return [Claim(text, "sometimes", norm_keeps_layers_together)]


BATCHNORM = Experiment(
    "batchnorm",
    log="batchnorm",
    runs=lambda preset: [run for runs in SIDES.values() for run in runs],
    draw=draw,
    claims=claims,
    presets=("laptop", "paper"),
)
