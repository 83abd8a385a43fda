"""Compares Layca with and without (as in Hyperball) the projection of its step on the tangent of the sphere.

The paper has no figure of this. `projection` repeats its comparison, at one rate for both sides and several
alphas; the authors' values are those of c10-cnn1. `tangent` gives each side its best rate. Its protocol was
written down before its runs:

- Target: test accuracy, or the loss on held-out text. Each cell (network and base) has its own rates.
- Rates: five powers of 3 with two seeds. The best on held-out images or text is chosen; of equal ones, that
  with the better neighbours. Then ten other seeds run at the chosen rate, paired.
- Rule: that of all claims (`claims.py`). If the interval lies within half a point or 0.02 nats of 0, the
  difference does not matter.

Added after these runs, because held-out images nearly tie at neighbouring rates: where two variants chose
different rates, both also run at the other's.

For SGD on the MLP there is a third variant, the geodesic, which turns by the rate and not by its arctangent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import optax
from matplotlib.figure import Figure

from experiments import choice
from experiments.claims import Claim, Finding, interval
from experiments.curves import draw_means, panel, titled_panels
from experiments.experiment import Experiment
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
    """Returns, by alpha, the runs with the projection and those without."""
    setup, found = SECTION5[preset][0], {}
    for alpha in sorted(PAPER.keys() & setup.alphas):
        runs = setup.runs(alpha=alpha)
        found[alpha] = [runs, [Unprojected(run.config) for run in runs]]
    return found


def draw_by_alpha(preset: str, results: Results) -> Figure:
    figure, axis = panel()
    found = by_alpha(preset)
    for side, label in enumerate(("with projection", "without")):
        table = [sides[side] for sides in found.values()]
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
        Claim("Projecting the step helps", PAPER[alpha], partial(projection_helps, sides), f"α = {alpha:g}")
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
        return f"{self.base} on {self.task}"

    def variants(self) -> Mapping[str, Mapping[str, Any]]:
        """Returns the flags of the variants by name."""
        sides = {"with projection": {}, "without": {"tangent": False}}
        once = (self.task, self.base) == ("mnist5k-mlp", "sgd")
        return sides | ({"geodesic": {"retraction": "geodesic"}} if once else {})

    def pairs(self) -> list[tuple[str, str]]:
        """Returns the names of the variants that are compared, the projection first."""
        first, *others = self.variants()
        return [(first, other) for other in others]

    def runs(self, name: str, power: int, seeds: Sequence[int], **flags: Any) -> list[Run]:
        """Returns the runs of a variant, on text one for all seeds; `flags` are those of `train.py`."""
        own = self.variants()[name]
        if self.task == "text":
            return [Language(self.base, self.steps, [power], seeds, **own)]
        flags = {"epochs": self.epochs, **own, **flags}
        return [variant(self.task, self.base, power, seed, **flags) for seed in seeds]


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
    """Returns the runs that judge each power."""
    return [cell.runs(name, power, CHOICE_SEEDS, validation=True) for power in cell.powers]


def runs(preset: str) -> list[Run]:
    """Returns the runs that choose rates."""
    pairs = [(cell, name) for cell in CELLS[preset] for name in cell.variants()]
    return [run for pair in pairs for runs in candidates(*pair) for run in runs]


def then(preset: str, results: Results, guess: bool) -> list[Run]:
    """Returns the runs that are compared; with `guess`, at the middle rate where none is chosen yet."""
    found: list[Run] = []
    for cell in CELLS[preset]:
        try:
            wanted = compared(cell, results)
        except MissingRunError:
            middle = cell.powers[len(cell.powers) // 2]
            wanted = [(name, middle) for name in cell.variants()] if guess else []
        found += [run for name, power in wanted for run in cell.runs(name, power, SEEDS)]
    return found


def compared(cell: Cell, results: Results) -> list[tuple[str, int]]:
    """Returns the variants that are compared, each at the power of either side."""
    pairs = {sides: chosen(cell, sides, results) for sides in cell.pairs()}
    sides = ((name, power) for names, powers in pairs.items() for name in names for power in powers)
    return list(dict.fromkeys(sides))


def chosen(cell: Cell, sides: tuple[str, str], results: Results) -> list[int]:
    """Returns the powers that two variants chose: one, or two if they differ."""
    return list(dict.fromkeys(choose(cell, name, results) for name in sides))


def choose(cell: Cell, name: str, results: Results) -> int:
    """Returns the power that is best on held-out images or text."""
    return cell.powers[choice.best(held_out(cell, name, results))]


def held_out(cell: Cell, name: str, results: Results) -> np.ndarray:
    """Returns, by power, the mean held-out score over seeds."""
    table = candidates(cell, name)
    found = [np.mean([_score(results.of(run), "choice") for run in runs]) for runs in table]
    # Runs that diverged are worse than any other.
    return np.nan_to_num(found, nan=-100.0)


def tested(cell: Cell, name: str, power: int, results: Results) -> np.ndarray:
    """Returns the test scores at a rate by seed; NaN where a run is missing."""
    runs = cell.runs(name, power, SEEDS)
    if not any(map(results.has, runs)):
        results.of(runs[0])  # names the missing run
    found = [_score(results.of(run), "loss") if results.has(run) else [np.nan] for run in runs]
    return np.concatenate(found)


def _score(line: Mapping[str, Any], name: str) -> np.ndarray:
    """Returns a score (accuracy, or minus the loss on text) of each seed in a line.

    `choice` names the score on held-out data, `loss` that on test data.
    """
    if name in line:
        return -np.array(line[name][0], float)
    accuracy = choice.final(line, "validation_accuracy") if name == "choice" else line["test_accuracy"]
    return np.array([accuracy], float)


def draw(preset: str, results: Results) -> Figure:
    cells = CELLS[preset]
    label = "accuracy, or −loss\n(lines: held out; dots: tested)"
    figure, axes = titled_panels(map(str, cells), label, xlabel="learning rate, power of 3")
    for axis, cell in zip(axes, cells, strict=True):
        for name in cell.variants():
            means = held_out(cell, name, results)
            (line,) = axis.plot(cell.powers, means, "--", marker=".", lw=1, label=name)
            power = choose(cell, name, results)
            found = tested(cell, name, power, results)
            axis.plot(np.full(len(found), power), found, "o", color=line.get_color(), alpha=0.4)
    axes[0].legend(fontsize="small")
    return figure


def better(cell: Cell, sides: tuple[str, str], results: Results) -> Finding:
    """Compares two variants, each at its own rate."""
    powers = [choose(cell, name, results) for name in sides]
    margins = {"difference": _difference(cell, sides, powers, results)}
    return Finding(f"at 3^{powers[0]} and 3^{powers[1]}{_settled(cell, margins)}", margins)


def better_at_equal_rates(cell: Cell, sides: tuple[str, str], results: Results) -> Finding:
    """Compares two variants at the rate of either."""
    powers = chosen(cell, sides, results)
    margins = {f"at 3^{power}": _difference(cell, sides, [power, power], results) for power in powers}
    return Finding(f"difference{_settled(cell, margins)}", margins)


def _settled(cell: Cell, margins: Mapping[str, np.ndarray]) -> str:
    """Says whether all differences are too small to matter."""
    limit = 0.02 if cell.task == "text" else 0.005
    ends = np.array([interval(values) for values in margins.values()])
    return f"; smaller than {limit}: it does not matter" if (np.abs(ends) < limit).all() else ""


def _difference(cell: Cell, sides: tuple[str, str], powers: Sequence[int], results: Results) -> np.ndarray:
    first, second = (tested(cell, *side, results) for side in zip(sides, powers, strict=True))
    difference = first - second
    return difference[np.isfinite(difference)]


def claims(preset: str) -> list[Claim]:
    text = "The projected step is better than "
    rows = ("", better), (", at equal rates", better_at_equal_rates)
    return [
        Claim(text + sides[1] + rates, ".892, .850", partial(compare, cell, sides), str(cell))
        for rates, compare in rows
        for cell in CELLS[preset]
        for sides in cell.pairs()
    ]


TANGENT = Experiment(
    "tangent", log="tangent", runs=runs, then=then, draw=draw, claims=claims, presets=tuple(CELLS)
)
