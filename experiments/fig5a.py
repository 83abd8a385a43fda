"""Figure 5a: the closer alpha is to 0, the higher the plateau that the training loss stays on with Layca.

The paper's task is tiny-cnn, the last of Section 5; Figure 8 has the others.
"""

from matplotlib.figure import Figure

from experiments.claims import Claim
from experiments.plateaus import draw_plateaus, plateau_claims, plateau_runs
from experiments.presets import SECTION5
from experiments.results import Results
from experiments.runs import Training

LOG = "fig2"
ALPHAS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.6)


def runs(preset: str) -> list[Training]:
    return plateau_runs(SECTION5[preset][-1:], ALPHAS)


def draw(preset: str, results: Results) -> Figure:
    return draw_plateaus(SECTION5[preset][-1:], ALPHAS, results)


def claims(preset: str) -> list[Claim]:
    return plateau_claims(SECTION5[preset][-1:], ALPHAS)
