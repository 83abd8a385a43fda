"""The file in which a prepared dataset is kept: its arrays, ready to be read."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from data.dataset import DataError, Dataset, Scale, Source, describe_source
from data.entry import Entry
from data.files import reading
from data.writing import atomic_write, reraise_os_errors

_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


def read(entry: Entry, path: Path) -> Dataset:
    """Reads a dataset from `path`; raises `DataError` if the file is not as `write` left it."""
    with reading(path), path.open("rb") as file:
        arrays = np.load(file, allow_pickle=False)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise ValueError("it holds one array, without names")
        mean, std = arrays["mean"], arrays["std"]
        if not (mean.shape == std.shape == () and mean.dtype == std.dtype == np.float32):
            raise ValueError(f"its mean and std should each be one float32, but are {mean!r} and {std!r}")
        if not (np.isfinite(mean) and 0 < std < np.inf):
            raise ValueError(f"its mean and std should be finite, and std above 0, but are {mean} and {std}")
        source = Source(**json.loads(str(arrays["source"]))) if "source" in arrays else None
        train_images, train_labels, test_images, test_labels = (arrays[name] for name in _ARRAYS)
    entry.check("train", train_images, train_labels, path)
    entry.check("test", test_images, test_labels, path)
    scale = Scale(np.float32(mean), np.float32(std))
    data = Dataset(train_images, train_labels, test_images, test_labels, scale, source)
    # Files of version 0.1.0 do not say what was read. It was the original.
    return data if data.source else describe_source(data, entry.title)


def write(path: Path, data: Dataset) -> None:
    """Writes the file whole or not at all."""
    arrays: dict[str, Any] = {name: getattr(data, name) for name in _ARRAYS} | data.scale._asdict()
    if data.source is not None:
        arrays["source"] = np.array(json.dumps(data.source._asdict()))
    with reraise_os_errors(path, DataError):
        path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, DataError) as part, part.open("wb") as file:
        np.savez(file, **arrays)
