"""A.2.2: without batch-norm, Layca sometimes cannot rotate all layers far and together.

No figure in the paper. The eleven-layer MLP on MNIST-5k with and without batch-norm, with Layca; in both
presets (the paper names no task).
"""

from matplotlib.figure import Figure

from experiments.claims import Claim, Finding
from experiments.curves import draw_rotation, layer_bar, mean_rotation, panels, unevenness
from experiments.presets import Part
from experiments.results import Results, spread, value_of
from experiments.runs import Training

LOG = "batchnorm"
PARTS = tuple(Part(task, (0, 1, 2, 3, 4)) for task in ("mnist5k-mlp", "mnist5k-mlp-no-norm"))


def runs(preset: str) -> list[Training]:
    del preset
    return [run for part in PARTS for run in part.runs()]


def draw(preset: str, results: Results) -> Figure:
    del preset
    figure, axes = panels(1, 2)
    for axis, part, title in zip(axes[0], PARTS, ("with batch-norm", "without"), strict=True):
        draw_rotation(axis, results.of(part.runs()[0]))
        axis.set(title=f"Layca {title}", xlabel="epoch")
    axes[0, 0].set_ylabel("cosine distance")
    layer_bar(figure, axes)
    return figure


def norm_keeps_layers_together(results: Results) -> Finding:
    sides = [part.runs() for part in PARTS]
    far, uneven, accuracy = (
        results.paired(sides, read) for read in (mean_rotation, unevenness, value_of("test_accuracy"))
    )
    ours = (
        f"mean distance {far[0].mean():.2f} with and {far[1].mean():.2f} without, deviation over layers"
        f" {uneven[0].mean():.2f} and {uneven[1].mean():.2f} of the mean, accuracy {spread(accuracy[0])} and"
        f" {spread(accuracy[1])}"
    )
    return Finding(ours, {"further": far[0] - far[1], "more even": uneven[1] - uneven[0]})


def claims(preset: str) -> list[Claim]:
    del preset
    text = "Without batch-norm Layca turns layers less far and less together"
    return [Claim(text, "sometimes", norm_keeps_layers_together)]
