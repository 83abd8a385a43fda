"""report.html: what it says of a run, that it loads nothing, and that no string can break it."""

import json
import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import tyro

import train
from training.config import Config, Flags
from training.page import command, write_page
from training.report import layer_colors

CONFIG = Flags(epochs=10).resolved()
HOSTILE = "</script><img src=x onerror=alert(1)>{{data}} & \"quoted\" 'too'"


class Page(HTMLParser):
    """A page's tags with their attributes, the text inside each kind of tag, and the embedded data."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.texts, self._open = [], {}, []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        self.data = json.loads(self.texts["script"][0], parse_constant=pytest.fail)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link"):  # these have no end
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and data.strip():
            self.texts.setdefault(self._open[-1], []).append(data)

    def close(self):
        super().close()
        assert self._open == []

    def facts(self):
        return dict(zip(self.texts["dt"], self.texts["dd"], strict=True))


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


def test_a_run_leaves_a_page_with_its_records(tmp_path):
    arguments = ["--epochs", "2", "--batch-size", "512", "--out", str(tmp_path / "run")]
    assert train.main(arguments) == 0
    page = Page(tmp_path / "run" / "report.html")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert page.data["records"] == records
    assert list(page.data["layers"]) == [f"layers/{i}/kernel" for i in range(11)]
    assert page.facts()["test accuracy"] == f"{records[-1]['test_accuracy']:.4f}"
    config = Config(**json.loads((tmp_path / "run" / "config.json").read_text()))
    assert "".join(page.texts["span"]).replace("--", " --") == command(config)


def test_the_header_says_what_the_run_was(tmp_path):
    config = Flags(optimizer="adam", alpha=-0.3, weight_decay=0.01, batch_size=1000, epochs=10).resolved()
    page = write(tmp_path, config)
    assert page.texts["title"] == page.texts["h1"] == ["mnist5k-mlp, adam with Layca"]
    assert page.facts() == {
        "test accuracy": "0.5000",
        "training accuracy": "0.7500",
        "training loss": "1.00e-01",
        "learning rate": "0.004115",
        "α": "-0.3",
        "weight decay": "0.01",
        "batch size": "1,000",
        "epochs": "10",
        "seed": "0",
        "time of training": "16 min 40 s",
    }
    # The rate drops after epochs 48 and 54 of 60.
    assert page.data["drops"] == [8, 9]
    assert "the learning rate is multiplied by 0.2" in page.source
    assert page.data["layers"] == {"b/kernel": "#440154", "a/kernel": "#fde725"}


def test_the_colors_are_viridis_from_the_first_layer_to_the_last():
    assert layer_colors(3) == ["#440154", "#21918c", "#fde725"]
    assert layer_colors(1) == ["#440154"]


def test_it_loads_nothing(tmp_path):
    page = write(tmp_path)
    addresses = [attrs[name] for _, attrs in page.tags for name in ("src", "href") if name in attrs]
    assert addresses == ["data:,"]  # no icon
    assert re.findall(r"https?://[^\s\"'<]*", page.source) == ["http://www.w3.org/2000/svg"]  # a name
    for word in ("url(", "@import", "fetch(", "import(", "{{"):
        assert word not in page.source


def test_what_the_script_looks_for_is_there(tmp_path):
    page = write(tmp_path)
    script = page.texts["script"][1]
    ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    classes = {name for _, attrs in page.tags for name in attrs.get("class", "").split()}
    by_id = re.findall(r"(?:getElementById|new Chart|curves)\(\"(\w+)\"", script)
    assert set(by_id) == ids
    wanted = re.findall(r"querySelector\(\"\.(\w+)", script)
    assert len(wanted) >= 5
    assert set(wanted) <= classes


def test_strings_break_neither_the_page_nor_its_data(tmp_path):
    plain = write(tmp_path, reason="done")
    records = [record(1, rotation={HOSTILE: 0.1, "a/kernel": 0.2}, skipped={HOSTILE: 7})]
    hostile = write(tmp_path, replace(CONFIG, data_dir=HOSTILE), records, reason=HOSTILE)
    tags = [tag for tag, _ in hostile.tags]
    tags.remove("span")  # of one more flag of the command
    for fact in ("div", "dt", "dd"):  # the steps that were skipped
        tags.remove(fact)
    assert tags == [tag for tag, _ in plain.tags]
    assert hostile.data["records"] == records
    assert f"Ended after epoch 1 of 10: {HOSTILE}" in hostile.texts["p"]
    assert shlex.split("".join(hostile.texts["span"]))[-1] == HOSTILE
    assert hostile.facts()["steps skipped by layers"] == "7"


def test_a_run_that_was_lost(tmp_path):
    nothing = {"b/kernel": None, "a/kernel": None}
    records = [record(1), *(record(epoch, train_loss=None, rotation=nothing) for epoch in (2, 3, 4))]
    page = write(tmp_path, CONFIG, records, reason="the training loss was not finite for 3 epochs")
    assert page.data["records"] == records
    assert page.facts()["training loss"] == "not finite"
    assert page.facts()["epochs"] == "4 of 10"
    assert "Ended after epoch 4 of 10: the training loss was not finite for 3 epochs" in page.texts["p"]
    # The rate would have dropped later.
    assert page.data["drops"] == []
    assert "Dashed" not in page.source


def test_a_run_in_which_nothing_rotates_and_one_that_held_images_out(tmp_path):
    assert write(tmp_path, CONFIG, [record(1, rotation={})]).data["layers"] == {}
    accuracies = [(0.5, 0.6), (0.7, 0.8), (0.9, 0.4)]
    records = [
        record(epoch, test_accuracy=test, validation_accuracy=held_out)
        for epoch, (test, held_out) in enumerate(accuracies, start=1)
    ]
    assert write(tmp_path, CONFIG, records).facts()["test accuracy"] == "0.7000"


@pytest.mark.parametrize(
    "flags",
    [
        Flags(),
        Flags(task="mnist5k-vgg", optimizer="adam", layca=False, learning_rate=3e-7, weight_decay=1e-5),
        Flags(alpha=-0.3, batch_size=7, epochs=3, seed=5, validation=True, data_dir="."),
    ],
)
def test_the_command_asks_for_the_run(flags):
    words = shlex.split(command(flags.resolved()))
    assert words[:2] == ["python", "train.py"]
    assert tyro.cli(Flags, args=words[2:]).resolved() == flags.resolved()
