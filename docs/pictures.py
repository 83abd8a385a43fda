"""Draws the pictures of runs on these pages: `python docs/pictures.py`.

It trains six networks, which takes a minute or two on two cores, and needs `chromium` for the screenshot of a
report. Drawings are transparent, and all their colors have a contrast of 3 or more with white and with black.
"""

import json
import re
import subprocess
import sys
from base64 import b64decode
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import jax
import matplotlib as mpl
import numpy as np
import optax
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from layca_optax import layca, rotation_report, track_rotation  # noqa: E402
from layca_optax.plot import draw_layers  # noqa: E402
from train import fit  # noqa: E402
from training import page  # noqa: E402
from training.config import Flags  # noqa: E402
from training.optimizer import make_optimizer  # noqa: E402
from training.tasks import TASKS  # noqa: E402

LAYERS = LinearSegmentedColormap.from_list("layers", ["#2e7dd7", "#b050be", "#d96214"])
GREY = "#777777"
OPTIMIZERS = ["sgd", "adam", "lamb", "layca", "layca, track_rotation"]
STYLE = dict.fromkeys(["text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"], GREY)
STYLE |= {"svg.fonttype": "none", "svg.hashsalt": "layca_optax"}


def measured(*args):
    """Returns the optimizer of `train.py`, with `track_rotation` behind it."""
    return optax.chain(make_optimizer(*args), track_rotation())


def lagging(name, with_layca, hparams, depths, schedule):
    """Returns Layca with a ninth of the learning rate for the fifth layer."""
    rates = jax.tree.map(lambda depth: hparams.learning_rate / (9 if depth == 4 else 1), depths)
    return optax.chain(
        layca(jax.tree.map(lambda rate: lambda count: rate * schedule(count), rates)), track_rotation()
    )


def train(optimizer=measured, **flags):
    """Trains; returns per layer the angle of each epoch's last step, and the distances from epoch 0 on."""
    config = Flags(task="mnist5k-mlp", **flags).resolved()
    data = TASKS[config.task].load(seed=config.seed, data_dir=None)
    reports = []
    for state, record in fit(config, data, optimizer=optimizer):
        reports.append(rotation_report(state.opt_state))
        layers = list(record["rotation"])
    print(flags, f"test accuracy {record['test_accuracy']:.4f}", flush=True)
    angles = {layer: [report[layer]["last_step"] for report in reports] for layer in layers}
    return angles, {layer: [0.0, *(report[layer]["from_init"] for report in reports)] for layer in layers}


def draw(axes, curves, **labels):
    """Draws one curve per layer, the first one blue and the last one orange."""
    length = len(next(iter(curves.values())))
    draw_layers(axes, np.arange(length) + 61 - length, curves)
    for line, color in zip(axes.lines, LAYERS(np.linspace(0, 1, len(curves))), strict=True):
        line.set_color(color)
    axes.set(xlim=(0, 60), xticks=(0, 20, 40, 60), **labels)
    axes.grid(color=GREY, alpha=0.3)
    axes.patch.set_alpha(0)


def save(figure, name):
    """Writes an SVG that is as wide as a page, without the time at which it was made."""
    path = ROOT / "docs" / "images" / f"{name}.svg"
    figure.savefig(path, transparent=True, metadata={"Date": None})
    path.write_text(re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'width="720"', path.read_text(), count=1))


def hero(runs):
    """Draws a column per run: the angle per step above, the distance that it leads to below."""
    figure = Figure(figsize=(5.4, 4.2), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, sharey="row")
    for column, (title, run) in zip(axes.T, runs.items(), strict=True):
        for panel, curves in zip(column, run, strict=True):
            draw(panel, curves)
        column[0].set_title(title)
        column[1].set_xlabel("epoch")
    axes[0, 0].set(ylabel="angle per step (rad)", yscale="log", ylim=(3e-4, 0.5))
    axes[1, 0].set(ylabel="distance from start", ylim=(0, None))
    note(axes[0, 0], 3, 0.05, "all layers")
    note(axes[1, 0], 3, 0.19, "hidden layers")
    note(axes[1, 0], 58, 0.04, "last layer")
    note(axes[1, 1], 58, 0.21, "last layer")
    note(axes[1, 1], 58, 0.02, "hidden layers")
    save(figure, "rotation")


def four_curves(runs):
    """Draws the distances of four runs, each with a note on what is to be seen in it."""
    figure = Figure(figsize=(5.4, 4.6), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True).flat
    for panel, (title, (run, (x, y, text))) in zip(panels, runs.items(), strict=True):
        draw(panel, run[1])
        panel.set_title(title, fontsize="medium")
        panel.set_ylim(bottom=0)
        note(panel, x, y, text)
    figure.supxlabel("epoch", fontsize="medium")
    figure.supylabel("cosine distance from initialisation", fontsize="medium")
    save(figure, "curves")


def note(axes, x, y, text):
    axes.text(x, y, text, ha="left" if x < 30 else "right", va="bottom", fontsize="small", color=GREY)


def speeds():
    """Returns two of the benchmarks' tables: milliseconds on a CPU, and bytes that an H100 would move."""
    readme = (ROOT / "benchmarks" / "README.md").read_text()
    tables = {
        "ms per step on two\nCPU cores, with\n109 M parameters": ("transformer, 148 leaves", 1),
        "bytes per step\ncompiled for an H100,\nper byte of parameters": ("h100, float32", 2),
    }
    found = {}
    for title, (head, column) in tables.items():
        rows = re.search(rf"^\| {head}.*\n.*\n((?:\|.*\n)+)", readme, re.MULTILINE).group(1).splitlines()
        cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
        values = {row[0]: float(row[column]) for row in cells}
        found[title] = {name: values[name] for name in OPTIMIZERS}
    return found


def speed():
    figure = Figure(figsize=(4.8, 2.8), layout="constrained")
    charts = zip(figure.subplots(1, 2, sharey=True), speeds().items(), strict=True)
    for axes, (title, values) in charts:
        colors = [LAYERS(1.0) if name.startswith("layca") else GREY for name in values]
        bars = axes.barh([*values], [*values.values()], color=colors)
        axes.bar_label(bars, fmt="%.3g", padding=2, color=GREY, fontsize="small")
        axes.set(xticks=(), xlim=(0, 1.2 * max(values.values())))
        axes.set_title(title, fontsize="small", pad=2)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.patch.set_alpha(0)
    axes.invert_yaxis()
    save(figure, "benchmarks")


def thumbnails():
    """Writes the last plot of each notebook, small."""
    for path in sorted(ROOT.glob("notebooks/*.ipynb")):
        cells = json.loads(path.read_text())["cells"]
        outputs = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
        *_, last = (data["image/png"] for data in outputs if "image/png" in data)
        with Image.open(BytesIO(b64decode(last))) as image:
            image.thumbnail((360, 360))
            image.convert("RGB").quantize(64).save(
                ROOT / "docs" / "images" / f"{path.stem}.png", optimize=True
            )


def report():
    """Takes a screenshot of a run's report; the file keeps the names of panels and curves as text."""
    path = ROOT / "docs" / "images" / "report.png"
    with TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        subprocess.run([sys.executable, "train.py", "--out", out], cwd=ROOT, check=True)
        shown = out / "report.html"
        chromium = ["chromium", "--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1000,1345"]
        subprocess.run(
            [*chromium, "--virtual-time-budget=4000", f"--screenshot={path}", shown.as_uri()], check=True
        )
        records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    text = PngInfo()
    text.add_text("curves", json.dumps(names(records)))
    with Image.open(path) as image:
        image.convert("RGB").quantize(128).save(path, pnginfo=text, optimize=True)


def names(records):
    """Returns the titles of a report's panels and the names of its curves."""
    figure = page.draw(records)
    return [*(title.text for title in figure.layout.annotations), *(curve.name for curve in figure.data)]


if __name__ == "__main__":
    thumbnails()
    report()
    with mpl.rc_context(STYLE):
        speed()
        together, sgd = train(), train(layca=False)
        hero({"Layca": together, "SGD": sgd})
        four_curves(
            {
                "Layca": (together, (3, 0.165, "hidden layers\ntogether")),
                "Layca, one lower rate": (train(lagging), (58, 0.005, "one layer lags")),
                "SGD, large rate": (
                    train(layca=False, learning_rate=3.0),
                    (58, 0.1, "flat after\nthe first epoch"),
                ),
                "SGD, weight decay": (
                    train(layca=False, weight_decay=0.003),
                    (3, 0.6, "late rise: weights\nhave shrunk"),
                ),
            }
        )
