"""The original files of MNIST, Fashion-MNIST and CIFAR, read whole and into arrays."""

import gzip
import pickle
import tarfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from data.dataset import DataError
from data.files import read_gzip, reading

# Files that CIFAR's archives hold, in this order; those of the binary archives end in .bin.
_CIFAR_PARTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "cifar10": {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
    "cifar100": {"train": ("train",), "test": ("test",)},
}


def read_idx(files: Mapping[str, Path], split: str) -> tuple[np.ndarray, np.ndarray, Path]:
    """Images `(n, 28, 28, 1)`, labels `(n,)`, and the file of the labels."""
    part = "train" if split == "train" else "t10k"
    images_path = files[f"{part}-images-idx3-ubyte.gz"]
    images = _idx_array(images_path, 3)
    if images.shape[1:] != (28, 28):
        size = f"{images.shape[1]} x {images.shape[2]}"
        raise DataError(f"{images_path} holds images of {size} pixels, not 28 x 28")
    labels_path = files[f"{part}-labels-idx1-ubyte.gz"]
    return images[..., None], _idx_array(labels_path, 1), labels_path


def _idx_array(path: Path, ndim: int) -> np.ndarray:
    with reading(path):
        content = read_gzip(path)
        magic, *shape = np.frombuffer(content, ">i4", 1 + ndim)
        # Two zero bytes, 8 for unsigned bytes, the number of dimensions.
        if magic != 0x0800 + ndim:
            raise ValueError(f"its magic number is {magic}, not {0x0800 + ndim}")
        return np.frombuffer(content, np.uint8, offset=4 * (1 + ndim)).reshape(shape)


def read_cifar(name: str, files: Mapping[str, Path], split: str) -> tuple[np.ndarray, np.ndarray, Path]:
    """Images `(n, 32, 32, 3)`, labels `(n, 1)` or (coarse, fine) `(n, 2)`, and the archive."""
    ((file, path),) = files.items()
    parts = _CIFAR_PARTS[name][split]
    with reading(path):
        if file.endswith("-binary.tar.gz"):
            width = 1 if name == "cifar10" else 2
            bytes_ = b"".join(_members(path, [f"{part}.bin" for part in parts]))
            rows = np.frombuffer(bytes_, np.uint8).reshape(-1, width + 3072)
            labels, pixels = rows[:, :width], rows[:, width:]
        else:
            keys = [b"labels"] if name == "cifar10" else [b"coarse_labels", b"fine_labels"]
            batches = [_Arrays(BytesIO(part), encoding="bytes").load() for part in _members(path, parts)]
            labels = np.concatenate([np.stack([batch[key] for key in keys], axis=1) for batch in batches])
            pixels = np.concatenate([_planes(batch[b"data"]) for batch in batches])
        images = pixels.reshape(len(labels), 3, 32, 32).transpose(0, 2, 3, 1)
    return images, labels, path


def _planes(pixels: Any) -> np.ndarray:
    """The pixels of a pickle as they are, if they are those of an original one."""
    if not isinstance(pixels, np.ndarray) or pixels.shape[1:] != (3072,) or pixels.dtype != np.uint8:
        found = f"{pixels.shape} {pixels.dtype}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise ValueError(f"its data should be an array of shape (n, 3072) uint8, but are {found}")
    return pixels


def _members(path: Path, names: Sequence[str]) -> list[bytes]:
    with gzip.open(path) as stream:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            found = {}
            for member in archive:
                name = PurePosixPath(member.name).name
                content = archive.extractfile(member) if name in names else None
                if content is not None:
                    found[name] = content.read()
        # gzip's checksum is at the end, behind what tarfile reads.
        while stream.read(2**20):
            pass
    absent = [name for name in names if name not in found]
    if absent:
        raise ValueError(f"it has no {absent[0]}")
    return [found[name] for name in names]


class _Arrays(pickle.Unpickler):
    """Reads dictionaries and arrays; any other object in a pickle could run code of its own."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            "_reconstruct": np.empty(0).__reduce__()[0],
            "ndarray": np.ndarray,
            # NumPy's own constructor warns at how it was called when these archives were made.
            "dtype": lambda code, *_: np.dtype(code),
        }
        if not module.startswith("numpy") or name not in allowed:
            raise pickle.UnpicklingError(f"it holds {module}.{name}")
        return allowed[name]
