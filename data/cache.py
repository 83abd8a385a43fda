"""The file in which a prepared dataset is kept: arrays as they are, ready to be read."""

import json
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
            Scale(np.float32(arrays["mean"]), np.float32(arrays["std"])),
            # Files of version 0.1.0 have none.
            _source(str(arrays["source"])) if "source" in arrays else None,
        )
    check_dataset(name, data, path)
    return data


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
