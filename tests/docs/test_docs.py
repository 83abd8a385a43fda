"""The code of the documentation's pages runs and prints what they say, and their links lead somewhere."""

import numpy as np
import pages
import pytest

from experiments import rates
from experiments.results import Results

DOCS = {path.name: path for path in (pages.ROOT / "docs").rglob("*.md")}
# Pages whose code trains networks or compiles for several devices.
LONG = (
    "learning_rates.md",
    "leaves.md",
    "models.md",
    "precision.md",
    "state.md",
    "monitoring.md",
    "sharding.md",
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in DOCS]
)
def test_code_runs_and_prints_what_the_page_says(name):
    pages.run(DOCS[name])


@pytest.mark.parametrize("name", DOCS)
def test_links_lead_somewhere(name):
    assert pages.broken_links(DOCS[name]) == []


def test_the_best_rates_are_those_of_the_logs():
    rows = []
    found = [by_base for preset in rates.TASKS for by_base in rates.points(preset, Results(preset)).values()]
    for by_base in found:
        best = {base: dict(zip(*found, strict=True)) for base, found in by_base.items()}
        lengths = [steps for steps in best["sgd"] if all(steps in found for found in best.values())]
        rows += [row_of_rates(steps, [found[steps] for found in best.values()]) for steps in lengths]
    laptop = Results("laptop")
    for task, lengths in rates.BATCHES.items():
        for length in lengths:
            best = [rates.best_on_task(task, base, length, laptop) for base in rates.BASES]
            rows.append(f"{length.batch_size} {row_of_rates(rates.steps_of(task, length), best)}")
    assert len(rows) >= 12
    assert [row for row in rows if row not in DOCS["learning_rates.md"].read_text()] == []


def test_rates_are_as_flat_and_fall_as_fast_as_the_page_says():
    laptop, task = Results("laptop"), "mnist5k-mlp"

    def points_between(base, length, powers):
        means = np.array([np.mean(laptop.accuracies(runs)) for runs in rates.grid(task, base, length)])
        return 100 * np.ptp(means[[rates.POWERS.index(power) for power in powers]])

    _, _, long, longest = rates.LENGTHS[task]
    assert points_between("sgd", long, range(-5, -1)) <= 1
    assert points_between("sgd", longest, range(-5, -1)) <= 1.6
    assert points_between("momentum", rates.BATCHES[task][-1], range(-6, -2)) <= 1.3
    # From the lines of the figure: the best power at 39,000 steps; how much ten times the steps lower rates.
    found = rates.points("laptop", laptop)
    ends, falls = {}, {}
    for base in ("adam", "momentum"):
        lines = [
            np.polyfit(np.log(found[network][base][0]) / np.log(3), found[network][base][1], 1)
            for network in ("text", task)
        ]
        ends[base] = [round(float(np.polyval(line, np.log(39_000) / np.log(3))), 1) for line in lines]
        falls[base] = [round(float(10 ** -line[0]), 1) for line in lines]
    assert ends == {"adam": [-4.7, -5.2], "momentum": [-4.7, -4.7]}
    assert falls["adam"] == [1.7, 2.2]


def row_of_rates(steps, powers):
    # A best rate at an end of the grid has no parabola.
    cells = ["–" if np.isnan(power) else f"{power:.1f}" for power in powers]
    return f"| {steps} | {' | '.join(cells)} |"


@pytest.mark.parametrize(
    "code", ["```python\nprint(1)  # 10\n```\n", "```python\nprint(1)\nprint(2)\n```\n\n```text\n1\n```\n"]
)
def test_a_page_that_says_something_else_is_noticed(code, tmp_path):
    (tmp_path / "page.md").write_text(code)
    with pytest.raises(AssertionError, match="its code prints"):
        pages.run(tmp_path / "page.md")


def test_a_broken_link_is_noticed(tmp_path):
    (tmp_path / "page.md").write_text(
        "# The one\n[there](#the-one) [no](#two) [no](other.md) [](https://x)\n"
    )
    assert pages.broken_links(tmp_path / "page.md") == ["#two", "other.md"]
