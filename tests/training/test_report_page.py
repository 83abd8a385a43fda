"""Tests report.html: what it shows of a run or of other records, and that no string can break it."""

import json
import shlex
from dataclasses import replace
from html.parser import HTMLParser

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tyro

import train
from layca_optax import layca, rotation_report, track_rotation
from training.config import Config, Flags, command, comparison
from training.page import draw, write_page, write_report

CONFIG = Flags(epochs=10).resolved()
HOSTILE = "</script><img src=x onerror=alert(1)>{{data}} & \"quoted\" 'too'"
ANGLE = "angle of the last step (radians)"


class Page(HTMLParser):
    """Reads the tags of a page with their attributes, and the text inside each kind of tag."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.texts, self._open = [], {}, []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":  # which has no end
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and data.strip():
            self.texts.setdefault(self._open[-1], []).append(data)

    def notes(self):
        return self.texts["p"]


def record(epoch, **changes):
    measured = {"train_loss": 1 / epoch, "train_accuracy": 0.75, "test_accuracy": 0.5, "seconds": 100.0}
    return {
        "epoch": epoch,
        **measured,
        "rotation": {"b/kernel": 0.1, "a/kernel": 0.2},
        "skipped": {},
    } | changes


def write(path, config=CONFIG, records=None, reason=None):
    write_page(config, records or [record(epoch) for epoch in range(1, 11)], reason, path / "report.html")
    return Page(path / "report.html")


def panels(figure):
    """Returns x and y of every curve, by the title of its panel and its name."""
    titles = [annotation.text for annotation in figure.layout.annotations]
    found = {title: {} for title in titles}
    for curve in figure.data:
        row = 1 if curve.yaxis == "y" else int(curve.yaxis[1:])
        found[titles[row - 1]][curve.name] = (list(curve.x), list(curve.y))
    return found


def test_a_run_writes_a_page_and_the_script_that_it_loads(tmp_path):
    arguments = ["--epochs", "2", "--batch-size", "512", "--out", str(tmp_path / "run")]
    assert train.main(arguments) == 0
    page = Page(tmp_path / "run" / "report.html")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert f"test accuracy {records[-1]['test_accuracy']:.4f}" in page.notes()[0]
    config = Config(**json.loads((tmp_path / "run" / "config.json").read_text()))
    assert page.texts["pre"] == [command(config)]
    for layer in records[0]["rotation"]:
        assert layer.replace("/", "\\u002f") in page.texts["script"][-1]
    # Nothing comes from a network: plotly is beside the page.
    loaded = [attrs[name] for _, attrs in page.tags for name in ("src", "href") if name in attrs]
    assert loaded == ["plotly.min.js"]
    assert (tmp_path / "run" / "plotly.min.js").stat().st_size > 1e6


def test_the_panels_hold_the_records():
    found = panels(draw([record(epoch) for epoch in range(1, 4)]))
    assert found == {
        "cosine distance from initialisation": {
            "b/kernel": ([0, 1, 2, 3], [0, 0.1, 0.1, 0.1]),
            "a/kernel": ([0, 1, 2, 3], [0, 0.2, 0.2, 0.2]),
        },
        "loss": {"train": ([1, 2, 3], [1, 1 / 2, 1 / 3])},
        "accuracy": {"train": ([1, 2, 3], [0.75] * 3), "test": ([1, 2, 3], [0.5] * 3)},
    }


def test_records_of_another_training_loop(tmp_path):
    """Records the report of a stack of two layers."""
    optimizer = optax.chain(layca(0.1, rotate="stacked_layer"), track_rotation(rotate="stacked_layer"))
    params = {"blocks": jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4)), jnp.float32)}
    state, records = optimizer.init(params), []
    for step in (10, 20):
        gradients = {"blocks": params["blocks"][:, ::-1]}
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        records.append({"step": step, "loss": 2.0, "rotation": rotation_report(state)})
    write_report(records, tmp_path / "mine.html", title="Mine", notes=["a note"])
    page = Page(tmp_path / "mine.html")
    assert page.texts["h1"] == page.texts["title"] == ["Mine"]
    assert page.notes() == ["a note"]
    assert "h2" not in page.texts
    found = panels(draw(records))
    assert list(found) == ["cosine distance from initialisation", ANGLE, "loss"]
    assert found["loss"] == {"loss": ([10, 20], [2, 2])}
    assert list(found[ANGLE]) == ["blocks[0]", "blocks[1]"]
    np.testing.assert_allclose(found[ANGLE]["blocks[1]"][1], np.arctan(0.1), rtol=1e-4)
    # One entry of the legend shows and hides a layer in both panels.
    figure = draw(records)
    assert [(curve.legendgroup, curve.showlegend) for curve in figure.data] == [
        ("blocks[0]", True),
        ("blocks[1]", True),
        ("blocks[0]", False),
        ("blocks[1]", False),
        ("loss", True),
    ]


def test_the_header_says_what_the_run_was(tmp_path):
    config = Flags(optimizer="adam", alpha=-0.3, weight_decay=0.01, batch_size=1000, epochs=10).resolved()
    page = write(tmp_path, config)
    assert page.texts["title"] == page.texts["h1"] == ["mnist5k-mlp, adam with Layca"]
    assert page.notes() == [
        "test accuracy 0.5000 · training accuracy 0.7500 · training loss 1.00e-01 · learning rate 0.004115 · "
        "α -0.3 · weight decay 0.01 · batch size 1,000 · epochs 10 · seed 0 · time of training 0:16:40 h",
        "Dashed lines: the learning rate is multiplied by 0.2.",
    ]
    # The rate drops after epochs 48 and 54 of 60.
    drawn = draw([record(1), record(10)], [8, 9])
    assert {shape.x0 for shape in drawn.layout.shapes} == {8, 9}
    assert len(drawn.layout.shapes) == 2 * 3


def test_curves_can_be_seen_on_white_and_on_black():
    curves = draw([record(1, rotation={f"{i}/kernel": 0.1 for i in range(25)})]).data
    colors = {curve.line.color for curve in curves}
    assert len(colors) >= 25
    for color in colors:
        channels = np.array([int(part) for part in color[4:-1].split(",")]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        luminance = linear @ [0.2126, 0.7152, 0.0722]
        # WCAG 2.2 asks for a contrast of 3.
        assert 1.05 / (luminance + 0.05) >= 3, color
        assert (luminance + 0.05) / 0.05 >= 3, color


def test_no_string_breaks_the_page_or_its_data(tmp_path):
    plain = write(tmp_path, reason="done")
    records = [record(1, rotation={HOSTILE: 0.1, "a/kernel": 0.2}, skipped={HOSTILE: 7})]
    hostile = write(tmp_path, replace(CONFIG, data_dir=HOSTILE), records, reason=HOSTILE)
    tags = [tag for tag, _ in plain.tags]
    tags.remove("p")  # the rate has not dropped
    assert [tag for tag, _ in hostile.tags] == tags
    assert f"Ended after epoch 1 of 10: {HOSTILE}" in hostile.notes()
    assert shlex.split(hostile.texts["pre"][0])[-1] == HOSTILE
    assert "steps skipped by layers 7" in hostile.notes()[0]
    # plotly interprets some tags in names.
    assert draw(records).data[0].name.startswith("&lt;/script&gt;&lt;img")


def test_a_run_whose_loss_became_nan(tmp_path):
    nothing = {"b/kernel": None, "a/kernel": None}
    records = [record(1), *(record(epoch, train_loss=None, rotation=nothing) for epoch in (2, 3, 4))]
    page = write(tmp_path, CONFIG, records, reason="the training loss was not finite for 3 epochs")
    assert "training loss not finite" in page.notes()[0]
    assert "epochs 4 of 10" in page.notes()[0]
    # The run ended before the rate dropped.
    assert page.notes()[1:] == ["Ended after epoch 4 of 10: the training loss was not finite for 3 epochs"]
    figure = draw(records)
    assert panels(figure)["loss"] == {"train": ([1, 2, 3, 4], [1, None, None, None])}
    assert figure.layout.yaxis2.type == "log"
    np.testing.assert_equal(figure.data[0].y, [0, 0.1, np.nan, np.nan, np.nan])


def test_with_a_loss_of_zero_the_axis_is_linear():
    assert draw([record(1), record(2, train_loss=0.0)]).layout.yaxis2.type is None


def test_a_run_without_rotation_and_one_with_held_out_images(tmp_path):
    assert list(panels(draw([record(1, rotation={})]))) == ["loss", "accuracy"]
    accuracies = [(0.5, 0.6), (0.7, 0.8), (0.9, 0.4)]
    records = [
        record(epoch, test_accuracy=test, validation_accuracy=held_out)
        for epoch, (test, held_out) in enumerate(accuracies, start=1)
    ]
    assert "test accuracy 0.7000" in write(tmp_path, CONFIG, records).notes()[0]
    assert panels(draw(records))["accuracy"]["validation"] == ([1, 2, 3], [0.6, 0.8, 0.4])


@pytest.mark.parametrize(
    "flags",
    [
        Flags(),
        Flags(task="mnist5k-vgg", optimizer="adam", layca=False, learning_rate=3e-7, weight_decay=1e-5),
        Flags(alpha=-0.3, batch_size=7, epochs=3, seed=5, validation=True, data_dir="."),
    ],
)
def test_the_command_starts_the_same_run(flags):
    words = shlex.split(command(flags.resolved()))
    assert words[:2] == ["python", "train.py"]
    assert tyro.cli(Flags, args=words[2:]).resolved() == flags.resolved()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (Flags(), "--no-layca"),
        (Flags(layca=False, learning_rate=0.3), ""),
        (
            Flags(task="mnist5k-vgg", optimizer="adam", epochs=3, seed=5, weight_decay=0.1, validation=True),
            "--task mnist5k-vgg --optimizer adam --no-layca --epochs 3 --seed 5 --validation",
        ),
    ],
)
def test_the_run_to_compare_with_differs_only_in_layca(flags, words):
    assert comparison(flags.resolved()) == f"python train.py {words}".strip()
