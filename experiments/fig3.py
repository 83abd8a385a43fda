"""Figure 3: layer-wise angle deviation curves at alpha = 0, with Layca (above) and SGD alone (below).

Layca turns most layers far and together; SGD turns them less and each by another amount.
"""

from functools import partial

from matplotlib.figure import Figure

from experiments.claims import Claim, Finding
from experiments.curves import draw_rotation, layer_bar, mean_rotation, panels, unevenness
from experiments.presets import SECTION5, Part
from experiments.results import Results
from experiments.runs import Training

LOG = "fig2"


def runs(preset: str) -> list[Training]:
    return [run for part in SECTION5[preset] for layca in (True, False) for run in part.runs(layca=layca)]


def draw(preset: str, results: Results) -> Figure:
    parts = SECTION5[preset]
    figure, axes = panels(2, len(parts))
    for row, layca in zip(axes, (True, False), strict=True):
        for axis, part in zip(row, parts, strict=True):
            draw_rotation(axis, results.of(part.runs(layca=layca)[0]))
            axis.set(title=f"{part.task}, {'Layca' if layca else 'SGD'}")
        row[0].set_ylabel("cosine distance")
    for axis in axes[-1]:
        axis.set_xlabel("epoch")
    layer_bar(figure, axes)
    return figure


def far_and_together(part: Part, results: Results) -> Finding:
    sides = [part.runs(layca=layca) for layca in (True, False)]
    (far, sgd_far), (uneven, sgd_uneven) = (
        results.paired(sides, read) for read in (mean_rotation, unevenness)
    )
    ours = (
        f"mean distance {far.mean():.2f} against {sgd_far.mean():.2f};"
        f" deviation over layers {uneven.mean():.2f} against {sgd_uneven.mean():.2f} of the mean"
    )
    return Finding(ours, {"further": far - sgd_far, "more even": sgd_uneven - uneven})


def claims(preset: str) -> list[Claim]:
    text = "Layca turns layers further than SGD, and together"
    return [
        Claim(f"{text}: {part.task}", "curves only", partial(far_and_together, part))
        for part in SECTION5[preset]
    ]
