"""What a dataset is: images as they were published, their classes, and how to standardise them."""

from collections.abc import Collection
from hashlib import sha256
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.model_selection import train_test_split


class DataError(Exception):
    """Says that data is missing, damaged or unexpected. The message names the file and what to do."""


class Scale(NamedTuple):
    """Holds mean and standard deviation of all training pixels, each one number, as in the paper."""

    mean: np.float32
    std: np.float32


class Source(NamedTuple):
    """Says what a dataset was read from. Configuration and log of every run hold it."""

    name: str  # `CIFAR-10`, or `CIFAR-10, JPEG 75` for a copy that has lost something
    format: str  # `original` (as published, or as tensorflow-datasets stores it), `PNG` or `JPEG`
    jpeg_quality: int | None  # estimated; the lowest if files differ
    train_images: int  # their number
    test_images: int
    sha256: str  # of pixels and labels, training first

    def __str__(self) -> str:
        counts = f"{self.train_images:,} + {self.test_images:,} images"
        return f"{self.name} ({counts}, {self.format}, sha256 {self.sha256[:12]})"


class Dataset(NamedTuple):
    """Holds images `(n, height, width, channels)` uint8 and their classes `(n,)` int32.

    Images stay bytes, a quarter of their size in float32, until `standardise` turns a batch of them into what
    a network sees. `source` is `None` for embedded data.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    scale: Scale
    source: Source | None = None


def make_dataset(
    train_images: np.ndarray, train_labels: np.ndarray, test_images: np.ndarray, test_labels: np.ndarray
) -> Dataset:
    """Returns a dataset with the scale of its training images."""
    pixels = train_images.reshape(-1)
    # Exact: sums of integers. einsum converts few pixels at a time.
    mean = pixels.sum(dtype=np.int64) / pixels.size
    squares = np.einsum("i,i", pixels, pixels, dtype=np.int64)
    scale = Scale(np.float32(mean), np.float32(np.sqrt(squares / pixels.size - mean**2)))
    return Dataset(
        train_images, train_labels.astype(np.int32), test_images, test_labels.astype(np.int32), scale
    )


def reduce(data: Dataset, train_size: int, seed: int) -> Dataset:
    """Keeps some training images, as many of each class, and halves the height and width of all images.

    Args:
      data: a dataset of images of even height and width.
      train_size: number of training images to keep, a multiple of the number of classes.
      seed: chooses them.

    Returns:
      A dataset whose pixels are means of 2 x 2. Its source tells size, number and hash of what is left.
    """
    order = np.random.default_rng(seed).permutation(len(data.train_labels))
    classes = np.unique(data.train_labels)
    per_class = train_size // len(classes)
    rows = np.concatenate([order[data.train_labels[order] == label][:per_class] for label in classes])
    parts = make_dataset(
        _halve(data.train_images[rows]), data.train_labels[rows], _halve(data.test_images), data.test_labels
    )
    if data.source is None:
        return parts
    _, height, width, _ = parts.train_images.shape
    changed = {"name": f"{data.source.name}, {height} x {width}", "train_images": len(rows)}
    return parts._replace(source=data.source._replace(**changed, sha256=_digest(parts)))


def _halve(images: np.ndarray) -> np.ndarray:
    n, height, width, channels = images.shape
    sums = images.reshape(n, height // 2, 2, width // 2, 2, channels).sum((2, 4), np.uint16)
    return ((sums + 2) // 4).astype(np.uint8)


def describe_source(
    data: Dataset, title: str, format: str = "original", jpeg_qualities: Collection[int] = ()
) -> Dataset:
    """Returns the dataset with its source, given the original's title and the qualities of JPEG files."""
    name, lowest = title, None
    if jpeg_qualities:
        lowest, highest = min(jpeg_qualities), max(jpeg_qualities)
        name = f"{title}, JPEG {lowest}" + (f" to {highest}" if highest > lowest else "")
    counts = len(data.train_labels), len(data.test_labels)
    return data._replace(source=Source(name, format, lowest, *counts, _digest(data)))


def _digest(data: Dataset) -> str:
    digest = sha256()
    for array in data[:4]:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def standardise(images: jax.Array, scale: Scale) -> jax.Array:
    """Returns `(images - mean) / std` in float32; for use inside `jit`, on a batch."""
    return (images.astype(jnp.float32) - scale.mean) / scale.std


def hold_out(data: Dataset, seed: int, fraction: float = 0.1) -> Dataset:
    """Splits the training images, so that hyperparameters can be chosen without the test images.

    Args:
      data: a dataset; its test images are left out of the result.
      seed: chooses the images that are held out.
      fraction: the share of images to hold out, the same in every class.

    Returns:
      A dataset whose test images are the held-out ones, with the scale of the remaining training images.
    """
    train, held_out = train_test_split(
        np.arange(len(data.train_labels)),
        test_size=fraction,
        stratify=data.train_labels,
        random_state=seed,
    )
    images, labels = data.train_images, data.train_labels
    parts = make_dataset(images[train], labels[train], images[held_out], labels[held_out])
    return parts._replace(source=data.source)
