"""Figure 8: plateaus of the training loss by alpha, as in Figure 5a, on the other tasks of Section 5."""

from matplotlib.figure import Figure

from experiments.claims import Claim
from experiments.plateaus import draw_plateaus, plateau_claims, plateau_runs
from experiments.presets import SECTION5
from experiments.results import Results
from experiments.runs import Training

LOG = "fig2"
ALPHAS = (0.0, 0.1, 0.2, 0.3, 0.4)


def runs(preset: str) -> list[Training]:
    return plateau_runs(SECTION5[preset][:-1], ALPHAS)


def draw(preset: str, results: Results) -> Figure:
    return draw_plateaus(SECTION5[preset][:-1], ALPHAS, results)


def claims(preset: str) -> list[Claim]:
    return plateau_claims(SECTION5[preset][:-1], ALPHAS)
