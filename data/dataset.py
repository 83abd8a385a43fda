"""What a dataset is: images as they were published, their classes, and how to standardise them."""

from collections.abc import Collection
from hashlib import sha256
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.model_selection import train_test_split


class DataError(Exception):
    """Data that is not there or not as it should be; the message names the file and says what to do."""


class Scale(NamedTuple):
    """Mean and standard deviation of all training pixels, each one number, as in the paper."""

    mean: np.float32
    std: np.float32


class Source(NamedTuple):
    """What a dataset was read from; stands in the configuration and the log of every run on it.

    Attributes:
      name: what it may be called where results are shown: `CIFAR-10`, or `CIFAR-10, JPEG 75` for a copy that
        has lost something.
      format: `original` (the files as published, or tensorflow-datasets' copy of them), `PNG` or `JPEG`.
      jpeg_quality: estimated from the quantisation tables; the lowest if they differ; `None` if not JPEG.
      train_images: their number.
      test_images: their number.
      sha256: of pixels and labels, training first, as they are trained on.
    """

    name: str
    format: str
    jpeg_quality: int | None
    train_images: int
    test_images: int
    sha256: str

    def __str__(self) -> str:
        counts = f"{self.train_images:,} + {self.test_images:,} images"
        return f"{self.name} ({counts}, {self.format}, sha256 {self.sha256[:12]})"


class Dataset(NamedTuple):
    """Images `(n, height, width, channels)` uint8 and their classes `(n,)` int32.

    Images stay bytes, a quarter of their size as numbers, until `standardise` turns a batch of them into what
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
    """A dataset with the scale of its training images."""
    total = squares = 0.0
    # Parts that fit the processor's cache. The sums are exact: integers below 2^53.
    pixels = train_images.reshape(-1)
    for start in range(0, pixels.size, 2**16):
        part = pixels[start : start + 2**16].astype(np.float64)
        total += part.sum()
        squares += part @ part
    mean = total / pixels.size
    scale = Scale(np.float32(mean), np.float32(np.sqrt(squares / pixels.size - mean**2)))
    return Dataset(
        train_images, train_labels.astype(np.int32), test_images, test_labels.astype(np.int32), scale
    )


def reduce(data: Dataset, train_size: int, seed: int) -> Dataset:
    """Takes as many training images of each class, and halves the height and width of all images.

    Args:
      data: a dataset of even height and width.
      train_size: number of training images, a multiple of the number of classes.
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
    """Returns the dataset with its source.

    Args:
      data: the dataset as it was read.
      title: what the original is called.
      format: see `Source`.
      jpeg_qualities: those of its files, if they are JPEG.
    """
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
    """`(images - mean) / std` in float32; for use inside of `jit`, on a batch."""
    return (images.astype(jnp.float32) - scale.mean) / scale.std


def hold_out(data: Dataset, seed: int, fraction: float = 0.1) -> Dataset:
    """Training images in two parts, to choose on one what is trained on the other.

    Args:
      data: a dataset; its test images are left out of the result.
      seed: chooses the images that are held out.
      fraction: how many of the training images these are, of every class alike.

    Returns:
      A dataset whose test images are the held out ones, and whose scale is that of the remaining ones.
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
