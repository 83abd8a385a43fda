"""A.2.2: without batch-norm, Layca sometimes cannot rotate all layers far and together.

No figure in the paper. The eleven-layer MLP on MNIST-5k with and without batch-norm, with Layca; the same in
both presets (the paper names no task).
"""

from matplotlib.figure import Figure

from experiments.claims import Claim, Finding
from experiments.curves import rotation_panels, turned
from experiments.experiment import Experiment
from experiments.presets import Part
from experiments.results import Results, spread

SIDES = {
    f"Layca {norm}": Part(task, (0, 1, 2, 3, 4)).runs()
    for norm, task in {"with batch-norm": "mnist5k-mlp", "without": "mnist5k-mlp-no-norm"}.items()
}


def draw(preset: str, results: Results) -> Figure:
    figure, axes = rotation_panels([{side: runs[0] for side, runs in SIDES.items()}], results)
    for axis in axes.flat:
        axis.set_xlabel("epoch")
    return figure


def norm_keeps_layers_together(results: Results) -> Finding:
    both = list(SIDES.values())
    accuracy = results.paired(both)
    (far, far_without, uneven, uneven_without), parts = turned(both, results)
    ours = (
        f"mean distance {far:.2f} with and {far_without:.2f} without, deviation over layers {uneven:.2f} and"
        f" {uneven_without:.2f} of the mean, accuracy {spread(accuracy[0])} and {spread(accuracy[1])}"
    )
    return Finding(ours, parts)


BATCHNORM = Experiment(
    "batchnorm",
    log="batchnorm",
    runs=lambda preset: [run for runs in SIDES.values() for run in runs],
    draw=draw,
    claims=lambda preset: [
        Claim(
            "Without batch-norm Layca turns layers less far and less together",
            "sometimes",
            norm_keeps_layers_together,
        )
    ],
    presets=("laptop", "paper"),
)
