"""The file in which a prepared dataset is kept: arrays as they are, ready to be read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data.catalog import check_dataset
from data.dataset import DataError, Dataset, Scale, Source
from data.files import reading
from data.writing import atomic_write, reraise_os_errors


def read(name: str, path: Path) -> Dataset:
    """The dataset in `path`; raises `DataError` if the file is not as `write` left it."""
    with reading(path), path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        data = Dataset(
            arrays["train_images"],
            arrays["train_labels"],
            arrays["test_images"],
            arrays["test_labels"],
            Scale(_number(arrays, "mean"), _number(arrays, "std")),
            # Files of version 0.1.0 have none.
            _source(str(arrays["source"])) if "source" in arrays else None,
        )
    check_dataset(name, data, path)
    if not data.scale.std > 0:
        raise DataError(
            f"{path} should hold a std above 0, but holds {data.scale.std}; move it away to have it prepared"
        )
    return data


def _number(arrays: Mapping[str, np.ndarray], name: str) -> np.float32:
    """Raises `ValueError` unless the array is one real, finite number."""
    array = arrays[name]
    if array.shape != () or array.dtype.kind not in "fiu" or not np.isfinite(array):
        raise ValueError(f"its {name} should be one finite number, but is {array!r}")
    return np.float32(array)


def _source(text: str) -> Source:
    try:
        return Source(**json.loads(text))
    except TypeError as error:
        raise ValueError(error) from error


def write(path: Path, data: Dataset) -> None:
    """Writes the file whole or not at all."""
    source: dict[str, Any] = {}
    if data.source is not None:
        source["source"] = np.array(json.dumps(data.source._asdict()))
    with reraise_os_errors(path, DataError):
        path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, DataError) as part, part.open("wb") as file:
        np.savez(
            file,
            train_images=data.train_images,
            train_labels=data.train_labels,
            test_images=data.test_images,
            test_labels=data.test_labels,
            mean=data.scale.mean,
            std=data.scale.std,
            **source,
        )
