"""Figure 5b: with weight decay SGD turns layers far and together; without it does not, and generalises worse.

The paper's network is that of Section 6.2 with Keras' L2 of 5e-4 for 250 epochs. Runs of the laptop preset
are so short that the VGG needs 1e-2 to turn much further. With that the MLP, at three times the learning
rate, hardly learns (`python train.py --no-layca --weight-decay 0.01`); it has 1e-3.
"""

from functools import partial

from matplotlib.figure import Figure

from experiments.claims import Claim, Finding
from experiments.curves import draw_rotation, layer_bar, mean_rotation, panels, unevenness
from experiments.presets import SECTION6, Part
from experiments.results import Results, spread, value_of
from experiments.runs import Training

LOG = "fig5b"
WEIGHT_DECAY = {"mnist5k-mlp": 1e-3, "mnist5k-vgg": 1e-2, "cifar16-wilson": 5e-4, "c10-cnn2": 5e-4}


def sides(part: Part) -> list[list[Training]]:
    """With weight decay, and without."""
    return [part.runs(layca=False, weight_decay=decay) for decay in (WEIGHT_DECAY[part.task], 0.0)]


def runs(preset: str) -> list[Training]:
    return [run for part in SECTION6[preset] for side in sides(part) for run in side]


def draw(preset: str, results: Results) -> Figure:
    parts = SECTION6[preset]
    figure, axes = panels(len(parts), 2)
    for row, part in zip(axes, parts, strict=True):
        for axis, side, title in zip(row, sides(part), ("with L2", "without"), strict=True):
            draw_rotation(axis, results.of(side[0]))
            axis.set(title=f"{part.task}, SGD {title}", xlabel="epoch")
        row[0].set_ylabel("cosine distance")
    layer_bar(figure, axes)
    return figure


def decay_rotates(part: Part, results: Results) -> Finding:
    (accuracy, far, uneven) = (
        results.paired(sides(part), read) for read in (value_of("test_accuracy"), mean_rotation, unevenness)
    )
    ours = (
        f"{spread(accuracy[0])} against {spread(accuracy[1])}; mean distance {far[0].mean():.2f} against"
        f" {far[1].mean():.2f}, deviation over layers {uneven[0].mean():.2f} against {uneven[1].mean():.2f}"
        " of the mean"
    )
    parts = {"further": far[0] - far[1], "more even": uneven[1] - uneven[0]}
    return Finding(ours, {**parts, "accuracy": accuracy[0] - accuracy[1]})


def layca_needs_none(part: Part, results: Results) -> Finding:
    """Layca without weight decay is at most a point behind SGD with it."""
    layca, sgd = results.paired([part.runs(), sides(part)[0]])
    return Finding(f"{spread(layca)} against {spread(sgd)}", {"difference + .01": layca - sgd + 0.01})


def claims(preset: str) -> list[Claim]:
    rows = {
        "With L2, SGD turns layers far and together and generalises better": (
            ".926 against .874",
            decay_rotates,
        ),
        "Layca without L2 generalises as well as SGD with it (6.3)": (".923 against .926", layca_needs_none),
    }
    return [
        Claim(f"{text}: {part.task}", paper, partial(measure, part))
        for text, (paper, measure) in rows.items()
        for part in SECTION6[preset]
    ]
