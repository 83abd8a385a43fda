"""Figure 5b: with weight decay SGD turns layers far and together; without it does not, and generalises worse.

The paper's network is that of Section 6.2 with Keras' L2 of 5e-4 for 250 epochs. Runs of the laptop preset
are so short that the VGG needs 1e-2 to turn much further. With that the MLP, at three times the learning
rate, hardly learns (`python train.py --no-layca --weight-decay 0.01`); it has 1e-3.
"""

from matplotlib.figure import Figure

from experiments.claims import Claim, Finding, by_task
from experiments.curves import rotation_panels, turned
from experiments.experiment import Experiment
from experiments.presets import SECTION6, Part
from experiments.results import Results, spread
from experiments.runs import Training

WEIGHT_DECAY = {"mnist5k-mlp": 1e-3, "mnist5k-vgg": 1e-2, "cifar16-wilson": 5e-4, "c10-cnn2": 5e-4}


def sides(part: Part) -> dict[str, list[Training]]:
    decays = {"with L2": WEIGHT_DECAY[part.task], "without": 0.0}
    return {side: part.runs(layca=False, weight_decay=decay) for side, decay in decays.items()}


def runs(preset: str) -> list[Training]:
    return [run for part in SECTION6[preset] for side in sides(part).values() for run in side]


def draw(preset: str, results: Results) -> Figure:
    rows = [
        {f"{part.task}, SGD {side}": seeds[0] for side, seeds in sides(part).items()}
        for part in SECTION6[preset]
    ]
    figure, axes = rotation_panels(rows, results)
    for axis in axes.flat:
        axis.set_xlabel("epoch")
    return figure


def decay_rotates(part: Part, results: Results) -> Finding:
    both = list(sides(part).values())
    accuracy = results.paired(both)
    (far, far_without, uneven, uneven_without), parts = turned(both, results)
    ours = (
        f"{spread(accuracy[0])} against {spread(accuracy[1])}; mean distance {far:.2f} against"
        f" {far_without:.2f}, deviation over layers {uneven:.2f} against {uneven_without:.2f} of the mean"
    )
    return Finding(ours, {**parts, "accuracy": accuracy[0] - accuracy[1]})


def layca_needs_none(part: Part, results: Results) -> Finding:
    """Layca without weight decay is at most a point behind SGD with it."""
    layca, sgd = results.paired([part.runs(), sides(part)["with L2"]])
    return Finding(f"{spread(layca)} against {spread(sgd)}", {"difference + .01": layca - sgd + 0.01})


def claims(preset: str) -> list[Claim]:
    parts = SECTION6[preset]
    turns = "With L2, SGD turns layers far and together and generalises better"
    alike = "Layca without L2 generalises as well as SGD with it (6.3)"
    return [
        *by_task(parts, turns, ".926 against .874", decay_rotates),
        *by_task(parts, alike, ".923 against .926", layca_needs_none),
    ]


FIG5B = Experiment("fig5b", log="fig5b", runs=runs, draw=draw, claims=claims)
