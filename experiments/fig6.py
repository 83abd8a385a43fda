"""Figure 6: the factor that multiplies each layer's learning rate, by alpha (Equation 1). Needs no runs."""

import numpy as np
from matplotlib.figure import Figure

from experiments.curves import panel, shades
from experiments.experiment import Experiment
from experiments.presets import ALPHAS
from experiments.results import Results
from layca_optax import alpha_multipliers

# As many as c10-cnn1 has.
LAYERS = 25


def draw(preset: str, results: Results) -> Figure:
    figure, axis = panel()
    sizes = sorted({abs(alpha) for alpha in ALPHAS})
    for size, shade in zip(sizes, shades(len(sizes)), strict=True):
        for alpha in {size, -size}:
            multipliers = np.asarray(alpha_multipliers(alpha, LAYERS))
            axis.plot(multipliers, color=shade, label=f"|α| = {size:g}" if alpha == size else None)
    axis.set(xlabel="layer", ylabel="factor of the learning rate", xlim=(0, LAYERS - 1))
    axis.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


FIG6 = Experiment("fig6", log="fig2", draw=draw)
