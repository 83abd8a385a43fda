"""Writes the report of a run: its curves as an HTML page, drawn by plotly.

The page needs no network: `plotly.min.js` is written beside it.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from plotly.colors import sample_colorscale
from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from data.writing import atomic_write
from training.config import Config, command
from training.report import show
from training.run_folder import final_accuracy

# From the first layer to the last; each has a contrast of 3 or more with white and with black.
_COLORS = ["rgb(46,125,215)", "rgb(176,80,190)", "rgb(217,98,20)"]
_DISTANCE, _ANGLE = "cosine distance from initialisation", "angle of the last step (radians)"
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: auto; padding: 16px }}
pre {{ white-space: pre-wrap }}
.main-svg text:not(.hoverlayer text) {{ fill: CanvasText !important }}
</style>
<h1>{title}</h1>
{notes}{figure}
{again}</html>
"""


def write_page(config: Config, records: Sequence[Mapping[str, Any]], reason: str | None, path: Path) -> None:
    """Writes the report of a run of `train.py`.

    Args:
      config: the run.
      records: one per epoch, at least one.
      reason: why it ended before its last epoch, `None` if it did not.
      path: as for `write_report`.
    """
    last, (drops, factor) = records[-1], config.schedule()
    drops = [drop for drop in drops if 0 < drop < last["epoch"]]
    facts = {
        "test accuracy": show(final_accuracy(records)),
        "training accuracy": show(last["train_accuracy"]),
        "training loss": show(last["train_loss"], ".2e"),
        "learning rate": f"{config.learning_rate:.4g}",
        "α": f"{config.alpha:g}",
        "weight decay": f"{config.weight_decay:g}",
        "batch size": f"{config.batch_size:,}",
        "epochs": f"{config.epochs}"
        if last["epoch"] == config.epochs
        else f"{last['epoch']} of {config.epochs}",
        "seed": f"{config.seed}",
        "time of training": f"{timedelta(seconds=round(sum(record['seconds'] for record in records)))} h",
    }
    if skipped := sum(last["skipped"].values()):
        facts["steps skipped by layers"] = f"{skipped:,}"
    notes = [" · ".join(f"{name} {value}" for name, value in facts.items())]
    if reason is not None:
        notes.append(f"Ended after epoch {last['epoch']} of {config.epochs}: {reason}")
    if config.schedule_epochs is not None:
        notes.append(f"Added by --keep-schedule: epochs {config.schedule_epochs + 1} to {config.epochs}.")
    if drops:
        notes.append(f"Dashed lines: the learning rate is multiplied by {factor:g}.")
    write_report(records, path, title=config.title(), notes=notes, drops=drops, command=command(config))


def write_report(
    records: Sequence[Mapping[str, Any]],
    path: Path,
    *,
    title: str = "Layer rotation",
    notes: Sequence[str] = (),
    drops: Sequence[float] = (),
    command: str = "",
) -> None:
    """Writes curves of rotation, losses and accuracies of any training loop.

    Args:
      records: one per epoch or step, in order: `epoch` or `step`; any numbers whose names end in `loss` or
        `accuracy`, `None` where there is none; and `rotation`, per layer its cosine distance from
        initialisation or its entry of `layca_optax.rotation_report`.
      path: the HTML file; `plotly.min.js` is written into its folder.
      title: the heading.
      notes: paragraphs below it.
      drops: epochs or steps to mark by dashed lines.
      command: how to run it again.

    Raises:
      FileError: a file cannot be written.
    """
    page = _PAGE.format(
        title=escape(title),
        notes="".join(f"<p>{escape(note)}</p>\n" for note in notes),
        figure=draw(records, drops).to_html(include_plotlyjs="directory", full_html=False),
        again=f"<h2>To run it again</h2>\n<pre>{escape(command)}</pre>\n" if command else "",
    )
    for file, text in ((path, page), (path.with_name("plotly.min.js"), get_plotlyjs())):
        with atomic_write(file) as part:
            part.write_text(text, encoding="utf-8")


def draw(records: Sequence[Mapping[str, Any]], drops: Sequence[float] = ()) -> Figure:
    """Draws what `write_report` writes: panels below each other, with legends that toggle curves."""
    unit = "epoch" if "epoch" in records[0] else "step"
    x = [record[unit] for record in records]
    panels = _panels(records)
    count = max(1, len(panels))
    figure = make_subplots(
        count, 1, shared_xaxes=True, vertical_spacing=0.2 / count, subplot_titles=[*panels]
    )
    for row, (panel, curves) in enumerate(panels.items(), start=1):
        start = [0] if panel == _DISTANCE and x[0] > 0 else []
        colors = sample_colorscale(_COLORS, np.linspace(0, 1, max(2, len(curves))))
        for (name, values), color in zip(curves.items(), colors, strict=False):
            figure.add_scatter(
                x=start + x,
                y=start + values,
                name=escape(name.removesuffix("_" + panel)),
                line_color=color,
                mode="lines+markers" if len(records) < 50 else "lines",
                marker_size=4,
                connectgaps=panel == "accuracy",  # not measured in every epoch
                legendgroup=name,  # one click for both panels of rotation
                legend=f"legend{row}",
                showlegend=panel != _ANGLE or name not in panels.get(_DISTANCE, {}),
                hovertemplate=f"{unit} %{{x}}: %{{y:.4g}}",
                row=row,
                col=1,
            )
        axis = next(figure.select_yaxes(row=row, col=1))
        figure.update_layout({f"legend{row}": {"y": axis.domain[1], "yanchor": "top", "maxheight": 330}})
        if panel == "loss" and not np.any(np.array([*curves.values()], float) <= 0):
            axis.update(type="log", dtick="D2")  # 1, 2 and 5 have labels
    for drop in drops:
        figure.add_vline(drop, line={"dash": "dot", "width": 1, "color": "gray"})
    figure.update_annotations(x=0, xanchor="left")
    grey, clear = "rgba(128,128,128,0.3)", "rgba(0,0,0,0)"
    figure.update_xaxes(showticklabels=True, gridcolor=grey, zeroline=False)
    figure.update_xaxes(title_text=unit, row=count, col=1)
    figure.update_yaxes(gridcolor=grey, zerolinecolor=grey)
    return figure.update_layout(
        height=360 * count + 60,
        hoverlabel_namelength=-1,  # in full
        margin={"l": 60, "r": 10, "t": 40, "b": 50},
        modebar={"bgcolor": clear, "color": "gray"},
        paper_bgcolor=clear,
        plot_bgcolor=clear,
        template="none",
    )


def _panels(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[Any]]]:
    """Returns per panel its curves by name, with one value per record, `None` where there is none."""
    panels: dict[str, dict[str, list[Any]]] = {_DISTANCE: {}, _ANGLE: {}, "loss": {}, "accuracy": {}}
    for index, record in enumerate(records):
        found = [(name.rpartition("_")[2], name, value) for name, value in record.items()]
        for layer, entry in record.get("rotation", {}).items():
            measures = entry if isinstance(entry, Mapping) else {"from_init": entry}
            for panel, measure in ((_DISTANCE, "from_init"), (_ANGLE, "last_step")):
                for at, number in np.ndenumerate(np.asarray(measures.get(measure, []), float)):
                    found.append((panel, f"{layer}[{', '.join(map(str, at))}]" if at else layer, number))
        for panel, name, value in found:
            if panel in panels:
                panels[panel].setdefault(name, [None] * len(records))[index] = value
    return {panel: curves for panel, curves in panels.items() if curves}
