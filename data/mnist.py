"""MNIST and Fashion-MNIST: four files in the IDX format, compressed by gzip."""

import gzip
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from data.entry import Entry, Rows
from data.files import reading

_PARTS = {"train": "train", "test": "t10k"}
_IMAGES, _LABELS = "images-idx3-ubyte.gz", "labels-idx1-ubyte.gz"


def _read(entry: Entry, files: Mapping[str, Path], split: str) -> Rows:
    images_file, labels_file = (files[f"{_PARTS[split]}-{kind}"] for kind in (_IMAGES, _LABELS))
    images, labels = _array(images_file, 3)[..., None], _array(labels_file, 1)
    return Rows(images, labels, images_file, labels_file, keys=range(len(labels)))


def _array(path: Path, ndim: int) -> np.ndarray:
    with reading(path):
        with gzip.open(path) as stream:
            content = stream.read()
        magic, *shape = np.frombuffer(content, ">i4", 1 + ndim)
        # Two zero bytes, 8 for unsigned bytes, the number of dimensions.
        if magic != 0x0800 + ndim:
            raise ValueError(f"its magic number is {magic}, not {0x0800 + ndim}")
        return np.frombuffer(content, np.uint8, offset=4 * (1 + ndim)).reshape(shape)


def _urls(folder: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{part}-{kind}" for part in _PARTS.values() for kind in (_IMAGES, _LABELS))


MNIST = Entry(
    name="mnist",
    title="MNIST",
    image_shape=(28, 28, 1),
    train_counts=(5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
    test_counts=(980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
    urls=_urls("https://storage.googleapis.com/cvdf-datasets/mnist"),
    read=_read,
)
FASHION_MNIST = Entry(
    name="fashion_mnist",
    title="Fashion-MNIST",
    image_shape=(28, 28, 1),
    train_counts=(6000,) * 10,
    test_counts=(1000,) * 10,
    urls=_urls("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"),
    read=_read,
    remark="On Debian and Ubuntu, `apt install dataset-fashion-mnist` is enough.",
    system_folder=Path("/usr/share/datasets/fashion-mnist"),
)
