"""A small `tiny-imagenet-200` folder, and the archive of it, grey images included; what is refused."""

import shutil

import numpy as np
import original_files
import pytest
from PIL import Image
from tensorflow_datasets.core.download import checksums, downloader

import data
from data import DataError
from data.tiny_imagenet import read_images


@pytest.fixture
def folder(tmp_path):
    original_files.write_tiny_imagenet(tmp_path / "made" / "tiny-imagenet-200")
    return tmp_path / "made" / "tiny-imagenet-200"


def read_all(path):
    return [image for split in ("train", "test") for image in read_images(path, split)]


def zipped(folder):
    return folder.parent / shutil.make_archive(
        str(folder), "zip", root_dir=folder.parent, base_dir="tiny-imagenet-200"
    )


@pytest.mark.parametrize("pack", [lambda folder: folder, zipped])
def test_through_tensorflow_datasets(tmp_path, monkeypatch, pack):
    original_files.shrink(monkeypatch, "tiny_imagenet")
    expected = original_files.write_tiny_imagenet(tmp_path / "made" / "tiny-imagenet-200")
    home = tmp_path / "home"
    home.mkdir()
    shutil.move(pack(tmp_path / "made" / "tiny-imagenet-200"), home)
    loaded = data.load("tiny_imagenet", home)
    for split, images, labels in (
        ("train", loaded.train_images, loaded.train_labels),
        ("test", loaded.test_images, loaded.test_labels),
    ):
        assert images.shape == (len(expected[split]), 64, 64, 3)
        pairs = {(image.tobytes(), label) for image, label in zip(images, labels.tolist(), strict=True)}
        assert pairs == {(image.tobytes(), label) for image, label in expected[split]}


def test_what_tensorflow_datasets_has_downloaded_is_used_offline(tmp_path, monkeypatch, folder):
    original_files.shrink(monkeypatch, "tiny_imagenet")
    archive = zipped(folder)

    def fetch(self, url, destination_path, verify=True):
        assert url == "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
        path = destination_path / archive.name
        shutil.copy(archive, path)
        return downloader.DownloadResult(path, checksums.compute_url_info(path))

    monkeypatch.setattr(downloader._Downloader, "_sync_download", fetch)
    monkeypatch.setattr(data, "reachable", lambda url: True)
    first = data.load("tiny_imagenet", tmp_path)
    shutil.rmtree(tmp_path / "tiny_imagenet")
    archive.unlink()
    monkeypatch.setattr(data, "reachable", lambda url: False)
    second = data.load("tiny_imagenet", tmp_path)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_grey_images_have_three_equal_channels(folder):
    original_files.write_tiny_imagenet(folder.parent / "again")
    for split in ("train", "test"):
        encoded = [image for _, image, _ in read_images(folder, split)]
        grey = [image for image in encoded if image.startswith(b"\x89PNG")]
        assert 0 < len(grey) < len(encoded)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "wnids.txt").unlink(), "wnids.txt is missing"),
        (lambda folder: shutil.rmtree(folder / "train" / "n02"), "train/n02/images is missing"),
        (lambda folder: (folder / "val/val_annotations.txt").unlink(), "val_annotations.txt is missing"),
        (lambda folder: (folder / "val/images/val_1.JPEG").unlink(), "val/images/val_1.JPEG is missing"),
        (
            lambda folder: (folder / "val/val_annotations.txt").write_text("val_0.JPEG\tn07\t0\n"),
            "gives val_0.JPEG the class 'n07', which wnids.txt lacks",
        ),
        (
            lambda folder: (folder / "val/val_annotations.txt").write_text("val_0.JPEG\n"),
            "gives val_0.JPEG the class ''",
        ),
        (
            lambda folder: cut(folder / "val/images/val_1.JPEG", 700),
            "val/images/val_1.JPEG is truncated or damaged",
        ),
        (
            lambda folder: cut(folder / "val/images/val_1.JPEG", 0),
            "val/images/val_1.JPEG is truncated or damaged",
        ),
        (
            lambda folder: Image.new("RGB", (63, 64)).save(folder / "val/images/val_1.JPEG"),
            "val_1.JPEG is truncated or damaged .it has 63 x 64 pixels, not 64 x 64",
        ),
    ],
)
def test_what_is_missing_or_damaged_is_named(folder, damage, message):
    damage(folder)
    left = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(DataError, match=message):
        read_all(folder)
    assert left == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def test_a_damaged_zip_is_named(folder):
    path = zipped(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"tiny-imagenet-200\.zip/.*JPEG is truncated or damaged"):
        read_all(path)


def test_a_truncated_zip_is_named(folder):
    path = zipped(folder)
    cut(path, 5000)
    with pytest.raises(DataError, match=r"tiny-imagenet-200\.zip is truncated or damaged"):
        list(read_images(path, "train"))


def test_an_image_too_few_is_noticed_and_nothing_is_kept(tmp_path, monkeypatch):
    original_files.shrink(monkeypatch, "tiny_imagenet")
    folder = tmp_path / "tiny_imagenet" / "tiny-imagenet-200"
    original_files.write_tiny_imagenet(folder)
    next((folder / "train" / "n01" / "images").iterdir()).unlink()
    with pytest.raises(DataError, match="should hold the 9 train images of tiny_imagenet, but holds 8"):
        data.load("tiny_imagenet", tmp_path)
    assert list((tmp_path / "tiny_imagenet").iterdir()) == [folder]


def test_names_may_repeat_between_classes(folder):
    for place in (folder / "train").glob("*/images"):
        for i, path in enumerate(sorted(place.iterdir())):
            path.rename(place / f"{i}.JPEG")
    keys = [key for key, _, _ in read_images(folder, "train")]
    assert len(keys) == len(set(keys)) == 9
    assert np.all([key.startswith(("n01/", "n02/", "n03/")) for key in keys])
