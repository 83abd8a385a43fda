"""What is known of the datasets that are not embedded: their shape, their rows of each class, their files."""

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from data.dataset import DataError, Dataset


class Entry(NamedTuple):
    """One dataset.

    Attributes:
      title: what it is called where people read of it.
      image_shape: height, width, channels.
      train_counts: number of training images of every class.
      test_counts: number of test images of every class.
      urls: the files it is published as.
      alternatives: file sets that do as well, each of them whole.
      remark: what else helps somebody who has no network.
    """

    title: str
    image_shape: tuple[int, int, int]
    train_counts: tuple[int, ...]
    test_counts: tuple[int, ...]
    urls: tuple[str, ...]
    alternatives: tuple[tuple[str, ...], ...] = ()
    remark: str = ""

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(url.rpartition("/")[2] for url in self.urls)

    def counts(self, split: str) -> tuple[int, ...]:
        return self.train_counts if split == "train" else self.test_counts


def _idx_files(folder: str) -> tuple[str, ...]:
    return tuple(
        f"{folder}/{part}-{kind}.gz"
        for part in ("train", "t10k")
        for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )


CATALOG: Mapping[str, Entry] = MappingProxyType(
    {
        "mnist": Entry(
            title="MNIST",
            image_shape=(28, 28, 1),
            train_counts=(5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
            test_counts=(980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
            urls=_idx_files("https://storage.googleapis.com/cvdf-datasets/mnist"),
        ),
        "fashion_mnist": Entry(
            title="Fashion-MNIST",
            image_shape=(28, 28, 1),
            train_counts=(6000,) * 10,
            test_counts=(1000,) * 10,
            urls=_idx_files("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"),
            remark="On Debian and Ubuntu, `apt install dataset-fashion-mnist` is enough.",
        ),
        "cifar10": Entry(
            title="CIFAR-10",
            image_shape=(32, 32, 3),
            train_counts=(5000,) * 10,
            test_counts=(1000,) * 10,
            urls=("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
            alternatives=(("cifar-10-python.tar.gz",),),
        ),
        "cifar100": Entry(
            title="CIFAR-100",
            image_shape=(32, 32, 3),
            train_counts=(500,) * 100,
            test_counts=(100,) * 100,
            urls=("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",),
            alternatives=(("cifar-100-python.tar.gz",),),
        ),
        "tiny_imagenet": Entry(
            title="Tiny ImageNet",
            image_shape=(64, 64, 3),
            train_counts=(500,) * 200,
            test_counts=(50,) * 200,
            urls=("http://cs231n.stanford.edu/tiny-imagenet-200.zip",),
            alternatives=(("tiny-imagenet-200",),),
        ),
    }
)


def hint(name: str, choices: Iterable[str]) -> str:
    """The end of a message about a name that is none of the choices: the nearest of them, if any is near."""
    close = difflib.get_close_matches(name, list(choices), n=1)
    return f" Did you mean {close[0]}?" if close else ""


def find_entry(name: str) -> Entry:
    """The entry of that name; raises `DataError` if there is none."""
    if name not in CATALOG:
        raise DataError(
            f"no dataset is called {name!r}; there are {', '.join(CATALOG)}.{hint(name, CATALOG)}"
        )
    return CATALOG[name]


def check_labels(name: str, split: str, labels: np.ndarray, where: object) -> None:
    """Raises `DataError` unless `labels` are as many of each class as the dataset has; `where` is named."""
    expected = np.array(find_entry(name).counts(split))
    is_integer = labels.dtype.kind in "iu" or not labels.size
    if labels.ndim != 1 or not is_integer or (labels.size and labels.min() < 0):
        lowest = f" from {labels.min()} on" if labels.dtype.kind == "i" else ""
        raise DataError(
            f"{where} should hold {split} labels of {name} of shape (n,) that are integers from 0 on, but"
            f" holds {labels.shape} {labels.dtype}{lowest}"
        )
    if len(labels) != expected.sum():
        raise DataError(
            f"{where} should hold the {expected.sum():,} {split} images of {name}, but holds {len(labels):,}"
        )
    found = np.bincount(labels, minlength=len(expected))
    if len(found) != len(expected):
        raise DataError(
            f"{where} is not the {split} part of {name}: that has {len(expected)} classes, and a label in"
            f" there is {len(found) - 1}"
        )
    wrong = np.flatnonzero(found != expected)
    if len(wrong):
        raise DataError(
            f"{where} is not the {split} part of {name}: of class {wrong[0]} that has"
            f" {expected[wrong[0]]:,} images, not {found[wrong[0]]:,}"
        )


def check_dataset(name: str, data: Dataset, where: object) -> None:
    """Raises `DataError` unless shapes, dtypes, rows and classes are what the dataset should have."""
    for split, images, labels in (
        ("train", data.train_images, data.train_labels),
        ("test", data.test_images, data.test_labels),
    ):
        shape = (len(labels), *find_entry(name).image_shape)
        if images.shape != shape or images.dtype != np.uint8:
            raise DataError(
                f"{where} should hold {split} images of {name} of shape {shape} uint8, but holds"
                f" {images.shape} {images.dtype}"
            )
        check_labels(name, split, labels, where)
