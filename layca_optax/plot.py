"""Draws layer rotation with matplotlib, which `pip install "layca-optax[plot]"` brings."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np

try:
    from matplotlib import colormaps
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import to_hex
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError(
        'layca_optax.plot needs matplotlib: pip install "layca-optax[plot]", or pip install matplotlib'
    ) from error

# More lines than these have no legend, but a scale of colors that names some of them.
_MOST_NAMES = 30
_MOST_TICKS = 10
# A leaf of more vectors is drawn as their median and range.
_MOST_VECTORS = 32


def plot_rotation(history: Mapping[int, Mapping[str, Mapping[str, Any]]], xlabel: str = "step") -> Figure:
    """Draws how far every layer turned: the angle of single steps above, the distance from the start below.

    Args:
      history: from a step, an epoch or any other number to what `rotation_report` returned there.
      xlabel: what these numbers are.

    Returns:
      A matplotlib `Figure` of two rows: `last_step`, the angle of one step in radians, and `from_init`, the
      cosine distance from initialisation. There is one line per layer, in the order of the last report, the
      first one darkest. That is the order of paths unless you sort the reports, for example by `layer_depths`
      ("Log it, draw it" in the documentation). A leaf of several vectors has one line per vector, or, if it
      has more than 32, the median with a band from the smallest to the largest. A vector that is zero (NaN)
      leaves a gap. A title says where all lines of the upper row coincide. `figure.savefig("rotation.png")`
      writes it; a notebook shows it.

    Raises:
      ValueError: `history` is empty, or holds something else than reports.
      ImportError: when this module is imported, if matplotlib is missing.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from layca_optax import rotation_report, track_rotation
      >>> from layca_optax.plot import plot_rotation
      >>> params = {"kernel": jnp.eye(3)}
      >>> optimizer = optax.chain(optax.sgd(0.1), track_rotation())
      >>> state, history = optimizer.init(params), {}
      >>> for step in range(3):
      ...   updates, state = optimizer.update({"kernel": jnp.ones((3, 3))}, state, params)
      ...   params = optax.apply_updates(params, updates)
      ...   history[step] = rotation_report(state)
      >>> [axes.get_ylabel() for axes in plot_rotation(history).axes]
      ['angle per step (rad)', 'cosine distance from start']

    References:
      Carbonnelle and De Vleeschouwer, 2018 (https://arxiv.org/abs/1806.01603), Figure 3, draws the lower row.
    """
    _check(history)
    # Not pyplot, which would choose a backend for the whole process.
    figure = _NotebookFigure(figsize=(6.4, 5.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    steps = sorted(history)
    curves = {measure: _curves(history, steps, measure) for measure in ("last_step", "from_init")}
    draw_layers(upper, steps, curves["last_step"])
    draw_layers(lower, steps, curves["from_init"])
    upper.set_ylabel("angle per step (rad)")
    lower.set(xlabel=xlabel, ylabel="cosine distance from start")
    for axes in (upper, lower):
        axes.set_ylim(bottom=0)
    if _coincide(list(curves["last_step"].values())):
        upper.set_title("all lines coincide", loc="right", fontsize="medium")
    lower.locator_params(axis="x", integer=True)
    names = list(curves["from_init"])
    if len(names) > _MOST_NAMES:
        scale_of_layers(figure, [upper, lower], names)
    else:
        size = "medium" if len(names) <= 12 else "x-small"
        lines = lower.get_legend_handles_labels()
        figure.legend(*lines, loc="outside right center", frameon=False, fontsize=size)
    return figure


class _NotebookFigure(Figure):
    """A figure that a notebook shows without pyplot."""

    def _repr_png_(self) -> bytes:
        with BytesIO() as file:
            self.savefig(file, format="png")
            return file.getvalue()


def draw_layers(axes: Axes, steps: Sequence[float], curves: Mapping[str, Any]) -> None:
    """Draws one line per layer, the first one darkest.

    Args:
      axes: where to draw.
      steps: the places on the horizontal axis.
      curves: from a name to values of shape `(steps,)`, or `(steps, vectors)`, which are drawn as their
        median with a band from the smallest to the largest.
    """
    for (name, values), color in zip(curves.items(), layer_colors(len(curves)), strict=True):
        values = np.asarray(values, float)
        if values.ndim > 1:
            low, middle, high = (_of_finite(f, values) for f in (np.nanmin, np.nanmedian, np.nanmax))
            axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
            values = middle
        axes.plot(
            steps, values, color=color, linewidth=1.5, label=name, marker="." if len(steps) == 1 else ""
        )
    axes.margins(x=0)
    axes.grid(alpha=0.3)


def scale_of_layers(figure: Figure, axes: Sequence[Axes], names: Sequence[str] = ("first", "last")) -> None:
    """Says which color is which layer by a scale beside the axes, with the names of up to ten of them."""
    named = np.unique(np.linspace(0, len(names) - 1, _MOST_TICKS).round().astype(int))
    bar = figure.colorbar(
        ScalarMappable(cmap="viridis"), ax=list(axes), label="layer", ticks=list(named / (len(names) - 1))
    )
    bar.ax.set_yticklabels([names[i] for i in named])


def layer_colors(count: int) -> list[str]:
    """Returns a color per layer, from the first one, darkest, to the last."""
    return [to_hex(color) for color in colormaps["viridis"](np.linspace(0, 1, count))]


def _curves(history: Mapping[int, Any], steps: Sequence[int], measure: str) -> dict[str, np.ndarray]:
    """Returns the values of every line at all steps; NaN where a report has no such layer."""
    curves: dict[str, np.ndarray] = {}
    for path, last in history[steps[-1]].items():
        shape = np.shape(last[measure])
        absent = {measure: np.full(shape, np.nan)}
        values = np.array([history[step].get(path, absent)[measure] for step in steps], float)
        if 0 < np.prod(shape) <= _MOST_VECTORS:
            for index in np.ndindex(shape):
                curves["/".join([path, *map(str, index)])] = values[(slice(None), *index)]
        else:
            curves[path] = values.reshape(len(steps), int(np.prod(shape)))
    return curves


def _coincide(curves: Sequence[np.ndarray]) -> bool:
    """Returns whether several lines look like one, as with one angle for all layers."""
    values = np.concatenate([curve.reshape(len(curve), -1) for curve in curves], axis=1)
    spread = np.abs(values - values[:, :1]).max()
    return values.shape[1] > 1 and bool(spread < 0.005 * values.max())


def _of_finite(function: Any, values: np.ndarray) -> np.ndarray:
    """Returns a statistic per row, NaN where all of the row is."""
    some = ~np.all(np.isnan(values), axis=1)
    result = np.full(len(values), np.nan)
    result[some] = function(values[some], axis=1)
    return result


def _check(history: Any) -> None:
    wanted = "plot_rotation takes a dictionary from steps to reports: history[step] = rotation_report(state)"
    if not isinstance(history, Mapping) or not history:
        raise ValueError(f"{wanted}; this is {'empty' if history == {} else type(history).__name__}")
    for step, report in history.items():
        measures = report.values() if isinstance(report, Mapping) else [report]
        if not all(isinstance(m, Mapping) and {"last_step", "from_init"} <= set(m) for m in measures):
            raise ValueError(f"{wanted}; what it has at {step!r} is no report")
