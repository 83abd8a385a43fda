"""Tests pictures in class folders, and the source that a dataset and its runs record."""

import json
import shutil
from dataclasses import replace

import numpy as np
import original_files
import pytest
from PIL import Image

import data
from data import DataError
from data.dataset import describe_source, make_dataset
from data.entry import SPLITS
from training.config import Flags, UsageError
from training.run import Session
from training.run_folder import RunFolder


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cifar10"


@pytest.mark.parametrize(
    ("name", "shape"), [("cifar10", (32, 32, 3)), ("cifar100", (32, 32, 3)), ("mnist", (28, 28, 1))]
)
def test_png_files_are_the_images(name, shape, tmp_path):
    written = original_files.write_classes(tmp_path / name, shape=shape)
    loaded = data.load(name, tmp_path)
    for split, images, labels in (
        ("train", loaded.train_images, loaded.train_labels),
        ("test", loaded.test_images, loaded.test_labels),
    ):
        np.testing.assert_array_equal(images, written[split][0])
        np.testing.assert_array_equal(labels, written[split][1])
        assert (images.dtype, labels.dtype) == (np.uint8, np.int32)
    titles = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "mnist": "MNIST"}
    assert loaded.source.name == titles[name]
    assert loaded.source[1:5] == ("PNG", None, 9, 4)


@pytest.mark.parametrize("quality", [10, 75, 95])
def test_a_jpeg_copy_is_called_one(quality, folder):
    original_files.write_classes(folder, "jpg", quality=quality)
    source = data.load("cifar10", folder.parent).source
    assert source.name == f"CIFAR-10, JPEG {quality}"
    assert (source.format, source.jpeg_quality) == ("JPEG", quality)
    assert str(source).startswith(f"CIFAR-10, JPEG {quality} (9 + 4 images, JPEG, sha256 ")


def test_jpeg_files_behind_other_names_and_of_several_qualities(folder):
    original_files.write_classes(folder, "png", format="JPEG", quality=80)
    first = next(folder.rglob("*.png"))
    Image.open(first).convert("RGB").save(first, format="JPEG", quality=60)
    source = data.load("cifar10", folder.parent).source
    assert (source.name, source.jpeg_quality) == ("CIFAR-10, JPEG 60 to 80", 60)


def test_the_second_start_reads_no_picture(folder):
    original_files.write_classes(folder, "jpg", quality=75)
    first = data.load("cifar10", folder.parent)
    shutil.rmtree(folder / "train")
    second = data.load("cifar10", folder.parent)
    assert first.source == second.source
    for a, b in zip(first[:4], second[:4], strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_hash_is_that_of_pixels_and_labels(folder):
    original_files.write_classes(folder)
    loaded = data.load("cifar10", folder.parent)
    again = describe_source(loaded, "CIFAR-10").source
    assert again.sha256 == loaded.source.sha256
    brighter = loaded._replace(test_images=loaded.test_images ^ 1)
    assert describe_source(brighter, "CIFAR-10").source.sha256 != again.sha256
    other = loaded._replace(train_labels=loaded.train_labels[::-1])
    assert describe_source(other, "CIFAR-10").source.sha256 != again.sha256


def test_a_folder_of_superclasses_above_the_class_does_not_matter(folder):
    original_files.write_classes(folder)
    expected = data.load("cifar10", folder.parent)
    (folder / "arrays.npz").unlink()
    for split in SPLITS:
        (folder / split / "animals").mkdir()
        (folder / split / "cat").rename(folder / split / "animals" / "cat")
    np.testing.assert_array_equal(data.load("cifar10", folder.parent).train_images, expected.train_images)


def test_the_original_files_go_before_a_copy(folder):
    original_files.write_classes(folder, "jpg", quality=75)
    original_files.write_cifar(folder / "cifar-10-binary.tar.gz", "cifar10")
    source = data.load("cifar10", folder.parent).source
    assert (source.name, source.format, source.jpeg_quality) == ("CIFAR-10", "original", None)


def test_arrays_of_an_older_version_are_the_original(folder):
    rows = [original_files.rows(split, (32, 32, 3)) for split in SPLITS]
    data.cache.write(folder / "arrays.npz", make_dataset(*rows[0], *rows[1]))
    source = data.load("cifar10", folder.parent).source
    assert (source.name, source.format, source.train_images) == ("CIFAR-10", "original", 9)


def test_without_anything_the_message_names_the_folders(tmp_path):
    with pytest.raises(DataError, match=r"cifar10/\{train,test\}/CLASS/\*\.\{png,jpg\} will do as well"):
        data.load("cifar10", tmp_path)


def test_a_run_keeps_what_it_was_trained_on_and_goes_on_with_nothing_else(folder, tmp_path):
    original_files.write_classes(folder, "jpg", quality=75)
    source = data.load("cifar10", folder.parent).source
    config = Flags(task="c10-cnn1").resolved()
    run = RunFolder(tmp_path / "run")
    with Session(config, run, source):
        pass
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert stored["data"] == {
        "name": "CIFAR-10, JPEG 75",
        "format": "JPEG",
        "jpeg_quality": 75,
        "train_images": 9,
        "test_images": 4,
        "sha256": source.sha256,
    }
    assert run.read_config() == config
    with Session(config, run, source):
        pass
    original = source._replace(name="CIFAR-10", format="original", jpeg_quality=None)
    message = r"begun on CIFAR-10, JPEG 75 .* cannot go on with CIFAR-10 \(9 \+ 4 images"
    with pytest.raises(UsageError, match=message), Session(config, run, original):
        pass
    with pytest.raises(UsageError, match="--seed was 0, is 1"), Session(replace(config, seed=1), run, source):
        pass
    with Session(config, run, original, overwrite=True):
        pass
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data"]["name"] == "CIFAR-10"
