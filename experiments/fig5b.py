"""Figure 5b: with weight decay SGD turns layers far and together; without it does not, and generalises worse.

The paper trains the network of Section 6.2 with Keras' L2 of 5e-4 for 250 epochs. Runs of the laptop preset
are so short that the VGG needs 1e-2 to turn much further. The MLP, whose learning rate is three times as
large, hardly learns with that (`python train.py --no-layca --weight-decay 0.01`), so it has 1e-3.
"""

from matplotlib.figure import Figure

from experiments.claims import Claim, Finding, by_task
from experiments.curves import compare_rotation, rotation_figure
from experiments.experiment import Experiment
from experiments.presets import SECTION6, Setup
from experiments.results import Results, spread
from experiments.runs import Training

WEIGHT_DECAY = {"mnist5k-mlp": 1e-3, "mnist5k-vgg": 1e-2, "cifar16-wilson": 5e-4, "c10-cnn2": 5e-4}


def sides(setup: Setup) -> dict[str, list[Training]]:
    decays = {"with L2": WEIGHT_DECAY[setup.task], "without": 0.0}
    return {side: setup.runs(layca=False, weight_decay=decay) for side, decay in decays.items()}


def runs(preset: str) -> list[Training]:
    return [run for setup in SECTION6[preset] for side in sides(setup).values() for run in side]


def draw(preset: str, results: Results) -> Figure:
    rows = [
        {f"{setup.task}, SGD {side}": seeds[0] for side, seeds in sides(setup).items()}
        for setup in SECTION6[preset]
    ]
    return rotation_figure(rows, results)


def decay_rotates(setup: Setup, results: Results) -> Finding:
    both = list(sides(setup).values())
    accuracy = results.paired(both)
    (far, far_without, uneven, uneven_without), margins = compare_rotation(both, results)
    ours = (
        f"{spread(accuracy[0])} against {spread(accuracy[1])}; mean distance {far:.2f} against"
        f" {far_without:.2f}, deviation over layers {uneven:.2f} against {uneven_without:.2f} of the mean"
    )
    return Finding(ours, {**margins, "accuracy": accuracy[0] - accuracy[1]})


def layca_needs_none(setup: Setup, results: Results) -> Finding:
    """Says whether Layca without weight decay is at most a point behind SGD with it."""
    layca, sgd = results.paired([setup.runs(), sides(setup)["with L2"]])
    return Finding(f"{spread(layca)} against {spread(sgd)}", {"difference + .01": layca - sgd + 0.01})


def claims(preset: str) -> list[Claim]:
    turns = "With L2, SGD turns layers far and together and generalises better"
    alike = "Layca without L2 generalises as well as SGD with it (6.3)"
    return by_task(
        SECTION6[preset],
        (turns, ".926 against .874", decay_rotates),
        (alike, ".923 against .926", layca_needs_none),
    )


FIG5B = Experiment("fig5b", log="fig5b", runs=runs, draw=draw, claims=claims)
