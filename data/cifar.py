"""CIFAR-10 and CIFAR-100: an archive of binary files, or one of Python's pickles."""

import pickle
import tarfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from data.entry import Entry, Rows
from data.files import reading


def _read(entry: Entry, files: Mapping[str, Path], split: str) -> Rows:
    ((file, path),) = files.items()
    binary = "binary" in file
    folder, names = file.removesuffix(".tar.gz"), [split]
    if entry.name == "cifar10":
        folder = f"cifar-10-batches-{'bin' if binary else 'py'}"
        names = [f"data_batch_{i}" for i in range(1, 6)] if split == "train" else ["test_batch"]
    with reading(path):
        if binary:
            contents = _members(path, [f"{folder}/{name}.bin" for name in names])
            # CIFAR-100 has the label of the superclass in front.
            start = 1 if entry.name == "cifar10" else 2
            rows = np.frombuffer(b"".join(contents), np.uint8).reshape(-1, start + 3072)
            labels, pixels = rows[:, start - 1], rows[:, start:]
        else:
            contents = _members(path, [f"{folder}/{name}" for name in names])
            batches = [_Unpickler(BytesIO(content), encoding="bytes").load() for content in contents]
            key = b"labels" if entry.name == "cifar10" else b"fine_labels"
            labels = np.concatenate([batch[key] for batch in batches])
            pixels = np.concatenate([batch[b"data"] for batch in batches])
            if pixels.shape[1:] != (3072,):
                raise ValueError(f"its data should have the shape (n, 3072), not {pixels.shape}")
        images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Rows(images, labels, path, path, keys=range(len(labels)))


def _members(path: Path, names: Sequence[str]) -> list[bytes]:
    with tarfile.open(path, "r:gz") as archive:
        members = [archive.extractfile(name) for name in names]
        contents = [member.read() for member in members if member]
        # gzip's checksum is at the end, behind what tarfile reads.
        while archive.fileobj and archive.fileobj.read(2**20):
            pass
    return contents


class _Unpickler(pickle._Unpickler):
    """Reads dictionaries, lists and arrays of bytes. Other objects could run code of their own.

    This is the unpickler written in Python. The one in C takes memory for any length that a pickle states,
    before it looks whether as many bytes are there. The one in Python does so for one operation, which is
    newer than these archives and left out here.
    """

    dispatch: ClassVar = {
        code: load for code, load in pickle._Unpickler.dispatch.items() if code != pickle.BYTEARRAY8[0]
    }

    def find_class(self, module: str, name: str) -> Any:
        # Makes an empty array. NumPy then sets its shape and bytes, and checks that their numbers match.
        allowed = {"_reconstruct": lambda *_: np.empty(0, np.uint8), "ndarray": None, "dtype": _uint8}
        if not module.startswith("numpy") or name not in allowed:
            raise pickle.UnpicklingError(f"it holds {module}.{name}")
        return allowed[name]


def _uint8(code: str, *_: Any) -> np.dtype:
    if np.dtype(code) != np.uint8:
        raise ValueError(f"its data should be uint8, not {np.dtype(code)}")
    return np.dtype(np.uint8)


def _entry(title: str, classes: int) -> Entry:
    file = title.lower()
    return Entry(
        name=file.replace("-", ""),
        title=title,
        image_shape=(32, 32, 3),
        train_counts=(50_000 // classes,) * classes,
        test_counts=(10_000 // classes,) * classes,
        urls=(f"https://www.cs.toronto.edu/~kriz/{file}-binary.tar.gz",),
        read=_read,
        alternatives=((f"{file}-python.tar.gz",),),
    )


CIFAR10 = _entry("CIFAR-10", 10)
CIFAR100 = _entry("CIFAR-100", 100)
