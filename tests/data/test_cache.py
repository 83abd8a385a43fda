"""Tests the file of a prepared dataset: it is read as it was written, and written whole or not at all."""

import os
from pathlib import Path

import numpy as np
import original_files
import pytest

from data import DataError, cache
from data.catalog import find_entry
from data.dataset import make_dataset


@pytest.fixture
def dataset():
    return make_dataset(*original_files.rows("train", (32, 32, 3)), *original_files.rows("test", (32, 32, 3)))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cifar10" / "arrays.npz"


def test_what_is_read_is_what_was_written(dataset, path):
    cache.write(path, dataset)
    read = cache.read(find_entry("cifar10"), path)
    assert read.scale == dataset.scale
    assert read.source[:2] == ("CIFAR-10", "original")  # of files without a source
    for a, b in zip(read[:5], dataset[:5], strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.asarray(a).dtype == np.asarray(b).dtype
    assert [file.name for file in path.parent.iterdir()] == ["arrays.npz"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_write_leaves_nothing(dataset, path, error, monkeypatch):
    real = np.savez

    def crash(file, **arrays):
        real(file, train_images=arrays["train_images"])
        raise error

    monkeypatch.setattr(np, "savez", crash)
    with pytest.raises(error):
        cache.write(path, dataset)
    assert list(path.parent.iterdir()) == []


def test_a_process_that_is_killed_leaves_no_file_of_that_name(dataset, path, monkeypatch):
    def killed(*arguments):
        raise KeyboardInterrupt

    # A process that is killed does not clean up.
    monkeypatch.setattr(os, "fsync", killed)
    monkeypatch.setattr(Path, "unlink", lambda *arguments, **keywords: None)
    with pytest.raises(KeyboardInterrupt):
        cache.write(path, dataset)
    (left,) = path.parent.iterdir()
    assert left.suffix == ".part"


def test_an_old_file_stays_until_the_new_one_is_whole(dataset, path, monkeypatch):
    cache.write(path, dataset)
    before = path.read_bytes()
    monkeypatch.setattr(np, "savez", lambda file, **arrays: file.write(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cache.write(path, dataset)
    assert path.read_bytes() == before


def test_a_file_that_cannot_be_written_is_named(dataset, path):
    path.parent.write_text("a file where the folder should be")
    with pytest.raises(DataError, match=r"cifar10/arrays\.npz could not be written"):
        cache.write(path, dataset)
