"""Makes the tables of claims in README.md: the verdicts at a glance, and each preset's numbers."""

from collections.abc import Sequence

from experiments.claims import Claim, judged
from experiments.experiment import experiment, names_of
from experiments.results import Results

VERDICTS = ("shows", "shows in part", "not resolved", "reversed", "not run")


def claims_of(preset: str) -> list[tuple[str, Claim]]:
    """Returns all claims of a preset, each after the name of its experiment."""
    return [(name, claim) for name in names_of(preset) for claim in experiment(name).claims(preset)]


def glance(presets: Sequence[Results]) -> str:
    """Returns the table of verdicts: a row per claim, a column per preset, and in each cell its cases."""
    rows: dict[str, list[dict[str, list[str]]]] = {}
    for column, results in enumerate(presets):
        for _, claim in claims_of(results.preset):
            _, verdict = judged(claim, results)
            cells = rows.setdefault(claim.text, [{} for _ in presets])
            cells[column].setdefault((verdict or "not run").partition(" with ")[0], []).append(claim.case)
    lines = [["claim", *(results.preset for results in presets)], ["---"] * (1 + len(presets))]
    lines += [[text, *map(_cell, cells)] for text, cells in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(verdicts: dict[str, list[str]]) -> str:
    found = [verdict for verdict in VERDICTS if verdict in verdicts]
    listed = (f"**{verdict}**: {', '.join(filter(None, verdicts[verdict]))}" for verdict in found)
    return "; ".join(text.removesuffix(": ") for text in listed) or "–"


def summary(results: Results) -> str:
    """Returns the table of claims that have runs, the number of those without, and the data used."""
    lines, missing = ["| claim | command | paper | here | |", "|---|---|---|---|---|"], []
    for name, claim in claims_of(results.preset):
        ours, found = judged(claim, results)
        if found:
            text = f"{claim.text}: {claim.case}" if claim.case else claim.text
            cells = text, f"`python -m experiments {name}`", claim.paper, ours, found
            lines.append(f"| {' | '.join(cells)} |")
        else:
            missing.append(name)
    if missing:
        counts = ", ".join(f"{missing.count(name)} of {name}" for name in dict.fromkeys(missing))
        lines += ["", f"Claims without runs so far: {counts}."]
    if data := results.data(results):
        lines += ["", f"Data: {data}."]
    return "\n".join(lines)
