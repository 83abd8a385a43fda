"""Figure 4: adaptive methods (solid) generalise worse than others (dashed) alone, and alike with Layca.

Learning rates are those of `training/tasks.py`: the paper's for its own network, Keras' defaults for the
adaptive methods on the others.
"""

from functools import partial

from matplotlib.figure import Figure

from experiments.claims import Claim, Finding
from experiments.methods import SIDES, draw_methods, method_runs
from experiments.presets import NAMES, OPTIMIZERS, SECTION6, Part
from experiments.results import Results
from experiments.runs import Training

LOG = "fig4"


def runs(preset: str) -> list[Training]:
    return method_runs(preset)


def draw(preset: str, results: Results) -> Figure:
    return draw_methods(preset, results, "test_accuracy", "test accuracy")


def layca_closes_the_gap(part: Part, results: Results) -> Finding:
    gaps, listed = {}, []
    for layca, side in SIDES.items():
        means = [results.mean(part.runs(optimizer=name, layca=layca)) for name in OPTIMIZERS]
        gaps[layca] = max(means) - min(means)
        listed.append(f"{side} {', '.join(f'{mean:.3f}' for mean in means)}")
    return "; ".join(listed), [gaps[True] < gaps[False], gaps[True] < gaps[False] / 3]


def claims(preset: str) -> list[Claim]:
    text = f"With Layca {', '.join(NAMES[name] for name in OPTIMIZERS)} generalise alike, alone they do not"
    paper = "alone .925, .922, .912, .890, .914; with Layca .923, .927, .923, .925, .927"
    return [
        Claim(f"{text}: {part.task}", paper, partial(layca_closes_the_gap, part)) for part in SECTION6[preset]
    ]
