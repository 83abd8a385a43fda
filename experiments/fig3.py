"""Figure 3: layer rotation at alpha = 0, with Layca (above) and with SGD alone (below).

Layca turns most layers far and together. SGD turns them less, and each by a different amount.
"""

from matplotlib.figure import Figure

from experiments.claims import Claim, Finding, by_task
from experiments.curves import STYLES, compare_rotation, rotation_figure
from experiments.experiment import Experiment
from experiments.presets import SECTION5, Setup
from experiments.results import Results
from experiments.runs import Training


def runs(preset: str) -> list[Training]:
    return [run for setup in SECTION5[preset] for layca in STYLES for run in setup.runs(layca=layca)]


def draw(preset: str, results: Results) -> Figure:
    rows = [
        {f"{setup.task}, {label}": setup.runs(layca=layca)[0] for setup in SECTION5[preset]}
        for layca, (label, _, _) in STYLES.items()
    ]
    return rotation_figure(rows, results)


def far_and_together(setup: Setup, results: Results) -> Finding:
    (far, sgd_far, uneven, sgd_uneven), margins = compare_rotation(
        [setup.runs(layca=layca) for layca in STYLES], results
    )
    ours = (
        f"mean distance {far:.2f} against {sgd_far:.2f};"
        f" deviation over layers {uneven:.2f} against {sgd_uneven:.2f} of the mean"
    )
    return Finding(ours, margins)


def claims(preset: str) -> list[Claim]:
    text = "Layca turns layers further than SGD, and together"
    return by_task(SECTION5[preset], (text, "curves only", far_and_together))


FIG3 = Experiment("fig3", log="fig2", runs=runs, draw=draw, claims=claims)
