"""Figure 4: adaptive methods (solid) generalise worse than others (dashed) alone, and alike with Layca.

Learning rates are those of `training/tasks.py`: the paper's for its own network, Keras' defaults for the
adaptive methods on the others.
"""

from functools import partial

import numpy as np
from matplotlib.figure import Figure

from experiments.claims import Claim, Finding
from experiments.methods import SIDES, draw_methods, method_runs
from experiments.presets import NAMES, OPTIMIZERS, SECTION6, Part
from experiments.results import Results, spread
from experiments.runs import Training

LOG = "fig4"


def runs(preset: str) -> list[Training]:
    return method_runs(preset)


def draw(preset: str, results: Results) -> Figure:
    return draw_methods(preset, results, "test_accuracy", "test accuracy")


def layca_closes_the_gap(part: Part, results: Results) -> Finding:
    found = paired_methods(part, results)
    means = {side: ", ".join(f"{mean:.3f}" for mean in found[side].mean(axis=1)) for side in SIDES}
    alone, with_layca = (np.ptp(found[side], axis=0) for side in SIDES)
    return Finding(
        "; ".join(f"{name} {means[side]}" for side, name in SIDES.items()),
        {"gap alone − with Layca": alone - with_layca, "a third of it − with Layca": alone / 3 - with_layca},
    )


def all_reach_the_best(part: Part, results: Results) -> Finding:
    """The worst with Layca is at most a point behind the best without."""
    found = paired_methods(part, results)
    worst, best = found[True].min(axis=0), found[False].max(axis=0)
    ours = f"worst {spread(worst)} against best {spread(best)}"
    return Finding(ours, {"difference + .01": worst - best + 0.01})


def paired_methods(part: Part, results: Results) -> dict[bool, np.ndarray]:
    """Test accuracies alone and with Layca, each of shape `(optimizers, seeds)`."""
    table = [part.runs(optimizer=name, layca=layca) for layca in SIDES for name in OPTIMIZERS]
    return dict(zip(SIDES, np.split(results.paired(table), 2), strict=True))


def claims(preset: str) -> list[Claim]:
    names = ", ".join(NAMES[name] for name in OPTIMIZERS)
    paper = "alone .925, .922, .912, .890, .914; with Layca .923, .927, .923, .925, .927"
    rows = {
        f"With Layca {names} generalise alike, alone they do not": layca_closes_the_gap,
        "With Layca all of them reach the best accuracy of any alone (6.2)": all_reach_the_best,
    }
    return [
        Claim(f"{text}: {part.task}", paper, partial(measure, part))
        for text, measure in rows.items()
        for part in SECTION6[preset]
    ]
