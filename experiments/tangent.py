"""Layca with the projection of its step on the tangent of the sphere, and without (which is Hyperball).

No figures in the paper. `projection` has the paper's comparison, at one rate for both and several alphas; the
authors' values are those of c10-cnn1. `tangent` has each at the best of its rates. Written down before its
runs:

- Target: test accuracy, or the loss on held-out text. Each cell (network and base) has its own rates.
- Rates: five powers of 3, two seeds; the best by held-out images or text, of equal ones that with the better
  neighbours. Then ten other seeds at the chosen rate, paired.
- Rule: that of all claims (`claims.py`). Where the interval lies within half a point or 0.02 nats of 0, what
  there is of a difference does not matter.

On SGD and the MLP there is a third variant, the geodesic, which turns by the rate and not by its arctangent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import optax
from matplotlib.figure import Figure

from experiments.claims import Claim, Finding, interval
from experiments.curves import draw_means, panels
from experiments.experiment import Experiment
from experiments.fig7 import best, final
from experiments.presets import SECTION5
from experiments.results import MissingRunError, Results, spread
from experiments.runs import Run, Training
from experiments.variants import Language, variant, with_rates
from layca_optax import layca
from training.optimizer import DIRECTIONS

# The authors' test accuracies with the projection and without, by alpha.
PAPER = {-0.2: ".850, .828", 0.0: ".892, .850", 0.2: ".886, .825", 0.4: ".850, .711"}
CHOICE_SEEDS, SEEDS = (10, 11), tuple(range(10))


without_projection = with_rates(
    lambda name, rates, depths: optax.chain(DIRECTIONS[name](), layca(rates, tangent=False))
)


@dataclass(frozen=True)
class Unprojected(Training):
    """A run with Layca whose steps are not projected."""

    PROGRAM = "unprojected"

    def optimizer(self) -> Any:
        return without_projection


def by_alpha(preset: str) -> dict[float, list[list[Training]]]:
    """By alpha, the runs with the projection and those without."""
    part, found = SECTION5[preset][0], {}
    for alpha in sorted(PAPER.keys() & part.alphas):
        runs = part.runs(alpha=alpha)
        found[alpha] = [runs, [Unprojected(run.config) for run in runs]]
    return found


def draw_by_alpha(preset: str, results: Results) -> Figure:
    figure, ((axis,),) = panels(1, 1, size=(4.5, 3.2))
    found = by_alpha(preset)
    for label, table in zip(("with projection", "without"), zip(*found.values(), strict=True), strict=True):
        draw_means(axis, list(found), table, results, marker="o", label=label)
    axis.set(xlabel="α", ylabel="test accuracy", title=SECTION5[preset][0].task)
    axis.legend()
    return figure


def projection_helps(sides: Sequence[Sequence[Training]], results: Results) -> Finding:
    projected, not_projected = results.paired(sides)
    ours = f"{spread(projected)} with, {spread(not_projected)} without"
    return Finding(ours, {"difference": projected - not_projected})


PROJECTION = Experiment(
    "projection",
    log="projection",
    runs=lambda preset: [run for sides in by_alpha(preset).values() for side in sides for run in side],
    draw=draw_by_alpha,
    claims=lambda preset: [
        Claim(f"Projecting the step helps: α = {alpha:g}", PAPER[alpha], partial(projection_helps, sides))
        for alpha, sides in by_alpha(preset).items()
    ],
)


class Cell(NamedTuple):
    """A network and a base. `task` is a key of `train.TASKS`, or `text`."""

    task: str
    base: str
    powers: Sequence[int]
    epochs: int | None = None
    steps: int = 400

    def __str__(self) -> str:
        return f"{self.task}, {self.base}"

    def variants(self) -> Mapping[str, Mapping[str, Any]]:
        sides = {"with projection": {}, "without": {"tangent": False}}
        once = (self.task, self.base) == ("mnist5k-mlp", "sgd")
        return sides | ({"geodesic": {"retraction": "geodesic"}} if once else {})


CELLS = {
    "laptop": (
        Cell("mnist5k-mlp", "sgd", range(-5, 0)),
        Cell("mnist5k-mlp", "adam", range(-6, -1)),
        Cell("text", "adam", range(-5, 0)),
        Cell("text", "muon", range(-5, 0)),
    ),
    "small": (
        Cell("cifar16-vgg10", "sgd", range(-5, 0), epochs=25),
        Cell("cifar16-vgg10", "adam", range(-6, -1), epochs=25),
    ),
}


def candidates(cell: Cell, name: str) -> list[list[Run]]:
    """The runs that judge each power. On text one run has all seeds."""
    flags = cell.variants()[name]
    if cell.task == "text":
        return [[Language(cell.base, cell.steps, [power], CHOICE_SEEDS, **flags)] for power in cell.powers]
    return [_on_task(cell, power, CHOICE_SEEDS, validation=True, **flags) for power in cell.powers]


def compared(cell: Cell, name: str, power: int) -> list[Run]:
    flags = cell.variants()[name]
    if cell.task == "text":
        return [Language(cell.base, cell.steps, [power], SEEDS, **flags)]
    return _on_task(cell, power, SEEDS, **flags)


def _on_task(cell: Cell, power: int, seeds: Sequence[int], **flags: Any) -> list[Run]:
    return [variant(cell.task, cell.base, power, seed, epochs=cell.epochs, **flags) for seed in seeds]


def runs(preset: str) -> list[Run]:
    """Those that choose rates."""
    pairs = [(cell, name) for cell in CELLS[preset] for name in cell.variants()]
    return [run for pair in pairs for runs in candidates(*pair) for run in runs]


def then(preset: str, results: Results, guess: bool) -> list[Run]:
    """Those at the chosen rates; with `guess` at the middle one where none is chosen yet."""
    found: list[Run] = []
    for cell in CELLS[preset]:
        for name in cell.variants():
            try:
                power = choose(cell, name, results)
            except MissingRunError:
                if not guess:
                    continue
                power = cell.powers[len(cell.powers) // 2]
            found += compared(cell, name, power)
    return found


def choose(cell: Cell, name: str, results: Results) -> int:
    """The power that is best on held-out images or text."""
    return cell.powers[best(judged(cell, name, results))]


def judged(cell: Cell, name: str, results: Results) -> np.ndarray:
    """By power, what the choice is made by: the mean over its seeds."""
    found = [[_score(results.of(run), "choice") for run in runs] for runs in candidates(cell, name)]
    # Runs that were lost are worse than any other.
    return np.nan_to_num([np.mean(seeds) for seeds in found], nan=-100.0)


def values(cell: Cell, name: str, results: Results) -> np.ndarray:
    """Test accuracies or, of text, losses with their signs turned, by seed; NaN where a run is missing."""
    runs = compared(cell, name, choose(cell, name, results))
    if not any(map(results.has, runs)):
        results.of(runs[0])
    found = [_score(results.of(run), "loss") if results.has(run) else [np.nan] for run in runs]
    return np.concatenate(found)


def _score(line: Mapping[str, Any], name: str) -> np.ndarray:
    """What is the better the higher, of each seed in a line."""
    if name in line:
        return -np.array(line[name][0], float)
    return np.array(
        [final(line, "validation_accuracy") if name == "choice" else line["test_accuracy"]], float
    )


def draw(preset: str, results: Results) -> Figure:
    cells = CELLS[preset]
    figure, axes = panels(1, len(cells))
    for axis, cell in zip(axes[0], cells, strict=True):
        for name in cell.variants():
            means = judged(cell, name, results)
            (line,) = axis.plot(cell.powers, means, "--", marker=".", lw=1, label=name)
            power = choose(cell, name, results)
            found = values(cell, name, results)
            axis.plot(np.full(len(found), power), found, "o", color=line.get_color(), alpha=0.4)
        axis.set(title=str(cell), xlabel="learning rate, power of 3")
    axes[0, 0].set_ylabel("accuracy, or −loss: held out (lines), ten seeds (dots)")
    axes[0, 0].legend(fontsize="small")
    return figure


def better(cell: Cell, name: str, results: Results) -> Finding:
    first, second = (values(cell, side, results) for side in ("with projection", name))
    difference = first - second
    difference = difference[np.isfinite(difference)]
    powers = [choose(cell, side, results) for side in ("with projection", name)]
    low, high = interval(difference)
    margin = 0.02 if cell.task == "text" else 0.005
    settled = f"; smaller than {margin}: it does not matter" if -margin < low and high < margin else ""
    return Finding(f"at 3^{powers[0]} and 3^{powers[1]}{settled}", {"difference": difference})


def claims(preset: str) -> list[Claim]:
    return [
        Claim(f"The projected step is better than {name}: {cell}", ".892, .850", partial(better, cell, name))
        for cell in CELLS[preset]
        for name in cell.variants()
        if name != "with projection"
    ]


TANGENT = Experiment(
    "tangent", log="tangent", runs=runs, then=then, draw=draw, claims=claims, presets=tuple(CELLS)
)
