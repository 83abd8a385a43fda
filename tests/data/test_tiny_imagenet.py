"""Tests a small folder `tiny-imagenet-200` and its archive, with grey images."""

import shutil

import numpy as np
import original_files
import pytest
from tensorflow_datasets.core.download import checksums, downloader

import data
from data import files


@pytest.fixture
def folder(tmp_path):
    original_files.write_tiny_imagenet(tmp_path / "made" / "tiny-imagenet-200")
    return tmp_path / "made" / "tiny-imagenet-200"


def zipped(folder):
    return folder.parent / shutil.make_archive(
        str(folder), "zip", root_dir=folder.parent, base_dir="tiny-imagenet-200"
    )


@pytest.mark.parametrize("pack", [lambda folder: folder, zipped])
def test_all_images_have_three_channels_grey_ones_too(tmp_path, pack):
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
    archive = zipped(folder)

    def fetch(self, url, destination_path, verify=True):
        assert url == "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
        path = destination_path / archive.name
        shutil.copy(archive, path)
        return downloader.DownloadResult(path, checksums.compute_url_info(path))

    monkeypatch.setattr(downloader._Downloader, "_sync_download", fetch)
    monkeypatch.setattr(files, "reachable", lambda url: True)
    first = data.load("tiny_imagenet", tmp_path)
    shutil.rmtree(tmp_path / "tiny_imagenet")
    archive.unlink()
    monkeypatch.setattr(files, "reachable", lambda url: False)
    second = data.load("tiny_imagenet", tmp_path)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
