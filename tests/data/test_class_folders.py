"""Pictures in class folders: read right, called what they are, and refused where they are not whole."""

import json
import shutil
from dataclasses import replace

import numpy as np
import original_files
import pytest
from PIL import Image

import data
from data import DataError, class_folders, describe_source, files
from data.dataset import make_dataset
from training.config import Flags, UsageError
from training.run import Session
from training.run_folder import RunFolder

CLASSES = ("airplane", "bird", "cat")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    original_files.shrink(monkeypatch, "cifar10", "cifar100", "mnist")
    monkeypatch.setattr(data, "reachable", lambda url: False)
    monkeypatch.setattr(files, "SYSTEM_FOLDERS", {})


def write(folder, suffix="png", shape=(32, 32, 3), **options):
    """Class folders of random images; returns those of each split in the order of class and name."""
    written = {}
    for split in class_folders.SPLITS:
        images, labels = original_files.rows(split, shape)
        order = np.argsort(labels, kind="stable")
        written[split] = images[order], labels[order]
        for i, (image, label) in enumerate(zip(*written[split], strict=True)):
            place = folder / split / CLASSES[label]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.squeeze()).save(place / f"{i:04d}.{suffix}", **options)
    return written


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cifar10"


@pytest.mark.parametrize(
    ("name", "shape"), [("cifar10", (32, 32, 3)), ("cifar100", (32, 32, 3)), ("mnist", (28, 28, 1))]
)
def test_png_files_are_the_images(name, shape, tmp_path):
    written = write(tmp_path / name, shape=shape)
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
    write(folder, "jpg", quality=quality)
    source = data.load("cifar10", folder.parent).source
    assert source.name == f"CIFAR-10, JPEG {quality}"
    assert (source.format, source.jpeg_quality) == ("JPEG", quality)
    assert str(source).startswith(f"CIFAR-10, JPEG {quality} (9 + 4 images, JPEG, sha256 ")


def test_jpeg_files_behind_other_names_and_of_several_qualities(folder):
    write(folder, "png", format="JPEG", quality=80)
    first = next(folder.rglob("*.png"))
    Image.open(first).convert("RGB").save(first, format="JPEG", quality=60)
    source = data.load("cifar10", folder.parent).source
    assert (source.name, source.jpeg_quality) == ("CIFAR-10, JPEG 60 to 80", 60)


def test_the_second_start_reads_no_picture(folder):
    write(folder, "jpg", quality=75)
    first = data.load("cifar10", folder.parent)
    shutil.rmtree(folder / "train")
    second = data.load("cifar10", folder.parent)
    assert first.source == second.source
    for a, b in zip(first[:4], second[:4], strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_hash_is_that_of_pixels_and_labels(folder):
    write(folder)
    loaded = data.load("cifar10", folder.parent)
    again = describe_source(loaded, "CIFAR-10").source
    assert again.sha256 == loaded.source.sha256
    brighter = loaded._replace(test_images=loaded.test_images ^ 1)
    assert describe_source(brighter, "CIFAR-10").source.sha256 != again.sha256
    other = loaded._replace(train_labels=loaded.train_labels[::-1])
    assert describe_source(other, "CIFAR-10").source.sha256 != again.sha256


def test_a_folder_of_superclasses_above_the_class_does_not_matter(folder):
    write(folder)
    expected = data.load("cifar10", folder.parent)
    (folder / "arrays.npz").unlink()
    for split in class_folders.SPLITS:
        (folder / split / "animals").mkdir()
        (folder / split / "cat").rename(folder / split / "animals" / "cat")
    np.testing.assert_array_equal(data.load("cifar10", folder.parent).train_images, expected.train_images)


def test_the_original_files_go_before_a_copy(folder):
    write(folder, "jpg", quality=75)
    original_files.write_cifar(folder / "cifar-10-binary.tar.gz", "cifar10")
    source = data.load("cifar10", folder.parent).source
    assert (source.name, source.format, source.jpeg_quality) == ("CIFAR-10", "original", None)


def test_arrays_of_an_older_version_are_the_original(folder):
    rows = [original_files.rows(split, (32, 32, 3)) for split in class_folders.SPLITS]
    data.cache.write(folder / "arrays.npz", make_dataset(*rows[0], *rows[1]))
    source = data.load("cifar10", folder.parent).source
    assert (source.name, source.format, source.train_images) == ("CIFAR-10", "original", 9)


def first(folder, pattern):
    return sorted(folder.glob(pattern))[0]


def cut(folder):
    path = first(folder, "train/bird/*")
    path.write_bytes(path.read_bytes()[:-300])


def sixteen_bits(folder):
    Image.fromarray(np.full((32, 32), 40_000, np.uint16)).save(first(folder, "train/cat/*"), "png")


def no_picture(folder):
    first(folder, "test/cat/*").write_bytes(b"<html>404</html>")


def other_size(folder):
    Image.new("RGB", (33, 32)).save(first(folder, "test/cat/*"), format="PNG")


def other_format(folder):
    Image.new("RGB", (32, 32)).save(first(folder, "test/cat/*"), format="JPEG")


def beside_the_classes(folder):
    first(folder, "train/cat/*").rename(folder / "train" / "stray.png")


def twice(folder):
    (folder / "train" / "more" / "cat").mkdir(parents=True)
    first(folder, "train/cat/*").rename(folder / "train" / "more" / "cat" / "x.png")


def fourth_class(folder):
    for split in class_folders.SPLITS:
        (folder / split / "dog").mkdir()
        shutil.copy(first(folder, f"{split}/cat/*"), folder / split / "dog" / "1.png")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: shutil.rmtree(folder / "test"), r"cifar10/test is missing: class folders need train"),
        (lambda folder: shutil.rmtree(folder / "train"), r"cifar10/train is missing"),
        (lambda folder: shutil.rmtree(folder / "test" / "cat"), r"cifar10 has class .* one split only: cat"),
        (fourth_class, r"cifar10/train holds pictures in 4 class folders; CIFAR-10 has 3 classes"),
        (
            lambda folder: first(folder, "train/cat/*").unlink(),
            r"folder cat of .*cifar10/train holds 3 pictures; CIFAR-10 has 4 of that class in its train",
        ),
        (cut, r"train/bird/0003\.png is truncated or damaged"),
        (sixteen_bits, r"train/cat/0005\.png has 16 bits per channel; pictures must have 8"),
        (no_picture, r"test/cat/0003\.png is truncated or damaged"),
        (other_size, r"test/cat/0003\.png has 33 x 32 pixels; pictures of CIFAR-10 have 32 x 32"),
        (other_format, r"test/cat/0003\.png is JPEG and .*train/airplane/0000\.png is PNG"),
        (beside_the_classes, r"train/stray\.png is in no class folder"),
        (twice, r"train/cat and .*train/more/cat are folders of the same class"),
    ],
)
def test_what_is_not_whole_is_named_and_nothing_is_kept(damage, message, folder):
    write(folder)
    damage(folder)
    left = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(DataError, match=message):
        data.load("cifar10", folder.parent)
    assert left == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_wherever_a_file_is_cut_an_error_names_it(suffix, folder):
    write(folder, suffix)
    path = first(folder, "train/bird/*")
    whole = path.read_bytes()
    for length in range(0, len(whole) - 20, 97):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"train/bird/0003.* is truncated or damaged"):
            class_folders.read("cifar10", folder)


def test_without_anything_the_message_names_the_folders(tmp_path):
    with pytest.raises(DataError, match=r"cifar10/\{train,test\}/CLASS/\*\.\{png,jpg\} will do as well"):
        data.load("cifar10", tmp_path)


def test_a_run_keeps_what_it_was_trained_on_and_goes_on_with_nothing_else(folder, tmp_path):
    write(folder, "jpg", quality=75)
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
