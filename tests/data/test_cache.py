"""The file of a prepared dataset: what is read is what was written; written whole or not at all."""

import os
from pathlib import Path

import numpy as np
import original_files
import pytest

from data import DataError, cache
from data.dataset import make_dataset


@pytest.fixture(autouse=True)
def small(monkeypatch):
    original_files.shrink(monkeypatch, "cifar10")


@pytest.fixture
def dataset():
    return make_dataset(*original_files.rows("train", (32, 32, 3)), *original_files.rows("test", (32, 32, 3)))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cifar10" / "arrays.npz"


def test_what_is_read_is_what_was_written(dataset, path):
    cache.write(path, dataset)
    read = cache.read("cifar10", path)
    assert read.scale == dataset.scale
    for a, b in zip(read, dataset, strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.asarray(a).dtype == np.asarray(b).dtype
    assert [file.name for file in path.parent.iterdir()] == ["arrays.npz"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_what_is_interrupted_leaves_nothing(dataset, path, error, monkeypatch):
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

    # Who is killed cleans nothing up.
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


def flip(content, at):
    content[at] ^= 1
    return content


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: b"not an archive" * 100,
        lambda content: flip(content, 5000),
        lambda content: flip(content, 30_000),
    ],
)
def test_a_damaged_file_is_named_and_left_alone(dataset, path, damage):
    cache.write(path, dataset)
    left = bytes(damage(bytearray(path.read_bytes())))
    path.write_bytes(left)
    with pytest.raises(DataError, match=r"cifar10/arrays\.npz is truncated or damaged"):
        cache.read("cifar10", path)
    assert path.read_bytes() == left


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.pop("mean"), "is truncated or damaged"),
        (lambda arrays: arrays.update(mean=np.array([None])), "is truncated or damaged"),
        (lambda arrays: arrays.update(std=np.float32(0)), "should hold a std above 0, but holds 0.0"),
        (lambda arrays: arrays.update(std=np.float32(-1)), "should hold a std above 0, but holds -1.0"),
        (lambda arrays: arrays.update(mean=np.float32(np.nan)), "its mean should be one finite number"),
        (lambda arrays: arrays.update(std=np.float32(np.inf)), "its std should be one finite number"),
        (lambda arrays: arrays.update(mean=np.complex64(1j)), "its mean should be one finite number"),
        (lambda arrays: arrays.update(std=np.ones(5)), "its std should be one finite number"),
        (lambda arrays: arrays.update(mean=np.array("0.5")), "its mean should be one finite number"),
        (
            lambda arrays: arrays.update(test_labels=arrays["test_labels"] - 1),
            r"integers from 0 on, but holds .4,. int32 from -1 on",
        ),
        (lambda arrays: arrays.update(train_labels=arrays["train_labels"] / 2), "but holds .9,. float64"),
        (
            lambda arrays: arrays.update(train_labels=arrays["train_labels"][:, None]),
            "holds .9, 1. int32",
        ),
        (lambda arrays: arrays.update(test_labels=arrays["test_labels"].astype(str)), "but holds .4,. <U"),
        (lambda arrays: arrays.update(test_labels=arrays["test_labels"][:3]), "shape .3, 32, 32, 3. uint8"),
        (
            lambda arrays: arrays.update(test_labels=0 * arrays["test_labels"]),
            "is not the test part of cifar10",
        ),
        (
            lambda arrays: arrays.update(train_images=arrays["train_images"] / 255),
            "should hold train images of cifar10 of shape .9, 32, 32, 3. uint8, but holds .* float64",
        ),
        (
            lambda arrays: arrays.update(
                test_images=arrays["test_images"][:3], test_labels=arrays["test_labels"][:3]
            ),
            "should hold the 4 test images of cifar10, but holds 3",
        ),
    ],
)
def test_arrays_that_are_not_the_dataset_are_refused(dataset, path, change, message):
    *arrays, scale, _ = dataset
    named = {**dict(zip(dataset._fields, arrays, strict=False)), **scale._asdict()}
    change(named)
    path.parent.mkdir()
    np.savez(path, **named)
    with pytest.raises(DataError, match=message):
        cache.read("cifar10", path)
