"""Figure 3: layer-wise angle deviation curves at alpha = 0, with Layca (above) and SGD alone (below).

Layca turns most layers far and together; SGD turns them less and each by another amount.
"""

from matplotlib.figure import Figure

from experiments.claims import Finding, by_task
from experiments.curves import rotation_panels, turned
from experiments.experiment import Experiment
from experiments.presets import SECTION5, Part
from experiments.results import Results
from experiments.runs import Training

SIDES = {"Layca": True, "SGD": False}


def runs(preset: str) -> list[Training]:
    return [run for part in SECTION5[preset] for layca in SIDES.values() for run in part.runs(layca=layca)]


def draw(preset: str, results: Results) -> Figure:
    rows = [
        {f"{part.task}, {side}": part.runs(layca=layca)[0] for part in SECTION5[preset]}
        for side, layca in SIDES.items()
    ]
    figure, axes = rotation_panels(rows, results)
    for axis in axes[-1]:
        axis.set_xlabel("epoch")
    return figure


def far_and_together(part: Part, results: Results) -> Finding:
    sides = [part.runs(layca=layca) for layca in SIDES.values()]
    (far, sgd_far, uneven, sgd_uneven), parts = turned(sides, results)
    ours = (
        f"mean distance {far:.2f} against {sgd_far:.2f};"
        f" deviation over layers {uneven:.2f} against {sgd_uneven:.2f} of the mean"
    )
    return Finding(ours, parts)


FIG3 = Experiment(
    "fig3",
    log="fig2",
    runs=runs,
    draw=draw,
    claims=lambda preset: by_task(
        SECTION5[preset],
        "Layca turns layers further than SGD, and together",
        "curves only",
        far_and_together,
    ),
)
