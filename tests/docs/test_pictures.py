"""docs/pictures.py: the pictures that it drew are not older than what they show."""

import json
import runpy

import pages
import pytest
from PIL import Image

IMAGES = pages.ROOT / "docs" / "images"


@pytest.fixture(scope="module")
def pictures():
    return runpy.run_path(str(pages.ROOT / "docs" / "pictures.py"))


def test_the_screenshot_of_a_report_has_its_panels_and_curves(pictures):
    with Image.open(IMAGES / "report.png") as image:
        shown = json.loads(image.text["curves"])
    layers = [name for name in shown if name.endswith("/kernel")]
    record = {"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.5, "test_accuracy": 0.5}
    assert len(layers) == 11
    assert shown == pictures["names"]([record | {"rotation": dict.fromkeys(layers, 0.1)}])


def test_the_charts_have_the_numbers_of_the_tables(pictures):
    drawn = (IMAGES / "benchmarks.svg").read_text()
    numbers = [f"{value:.3g}" for values in pictures["speeds"]().values() for value in values.values()]
    assert len(numbers) == 10
    assert [number for number in numbers if f">{number}<" not in drawn] == []
