"""What is known of a dataset before its files are read."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from hashlib import md5
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.dataset import DataError

SPLITS = ("train", "test")


class Rows(NamedTuple):
    """Holds what the files of one split contain."""

    images: np.ndarray  # uint8, of the entry's `image_shape`
    labels: np.ndarray  # integers
    images_file: Path  # what messages name
    labels_file: Path
    keys: Sequence[str | int]  # one per image: those with which tensorflow-datasets stores the examples


class Entry(NamedTuple):
    """Describes a dataset that is read from files.

    A new dataset writes `read`. `load` checks and orders what it returns.
    """

    name: str  # what `data.load` and tensorflow-datasets call it
    title: str  # what results call it
    image_shape: tuple[int, int, int]  # height, width, channels
    train_counts: tuple[int, ...]  # number of images per class
    test_counts: tuple[int, ...]
    urls: tuple[str, ...]  # of its files
    read: Callable[["Entry", Mapping[str, Path], str], Rows]  # given this entry, files by name, and the split
    alternatives: tuple[tuple[str, ...], ...] = ()  # sets of files that hold the same
    remark: str = ""  # further advice to somebody who has no network
    system_folder: Path | None = None  # where a package of the operating system puts the files

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(url.rpartition("/")[2] for url in self.urls)

    def counts(self, split: str) -> tuple[int, ...]:
        return self.train_counts if split == "train" else self.test_counts

    def load(self, files: Mapping[str, Path], split: str) -> tuple[np.ndarray, np.ndarray]:
        """Reads a split from its files, by name; raises `DataError` if they are damaged or of other data."""
        rows = self.read(self, files, split)
        self.check(split, rows.images, rows.labels, rows.labels_file, rows.images_file)
        order = stored_order(split, rows.keys)
        return rows.images[order], rows.labels[order]

    def check(
        self, split: str, images: np.ndarray, labels: np.ndarray, file: Path, images_file: Path | None = None
    ) -> None:
        """Raises `DataError` unless all images of all classes are there; `file` is where the labels are."""
        expected = Counter(dict(enumerate(self.counts(split))))
        for what, array, shape, dtype, where in (
            ("images", images, (expected.total(), *self.image_shape), np.uint8, images_file or file),
            ("labels", labels, (expected.total(),), np.integer, file),
        ):
            if array.shape != shape or not np.issubdtype(array.dtype, dtype):
                raise DataError(
                    f"{where} should hold {split} {what} of {self.title} of shape {shape}"
                    f" {dtype.__name__}, but holds {array.shape} {array.dtype}"
                )
        found = Counter(labels.tolist())
        for label in sorted(found | expected):
            if found[label] != expected[label]:
                raise DataError(
                    f"{file} is not the {split} split of {self.title}: that has {expected[label]:,} images"
                    f" of class {label}, not {found[label]:,}"
                )


def stored_order(split: str, keys: Sequence[str | int]) -> list[int]:
    """Returns indices of `keys`, ordered as tensorflow-datasets stores the examples that have these keys.

    So a dataset has one hash, whether it comes from its original files or from tensorflow-datasets.
    """
    return sorted(range(len(keys)), key=lambda i: md5(f"{split}{keys[i]}".encode()).digest())
