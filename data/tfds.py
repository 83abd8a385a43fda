"""What tensorflow-datasets does here, without TensorFlow: downloading, and reading what it has prepared.

Importing it takes a second, so this module is imported where it is needed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import downloader
from tqdm import tqdm

from data.dataset import DataError, Dataset, describe_source, make_dataset
from data.entry import SPLITS, Entry
from data.files import not_available, reading
from data.writing import first_line

# By default ten, which take 205 seconds without a network.
vars(downloader)["MAX_RETRIES"] = 0


def download(entry: Entry, folder: Path) -> Mapping[str, Path]:
    """Returns the original files by name, from `folder/downloads` or else from where they are published.

    Raises `DataError` if one cannot be fetched or has a wrong checksum.
    """
    target = folder / "downloads"
    try:
        manager: Any = tfds.download.DownloadManager(download_dir=target, dataset_name=entry.name)
        return manager.download(dict(zip(entry.files, entry.urls, strict=True)))
    except Exception as error:
        # Errors of the network have no number.
        if isinstance(error, OSError) and error.errno:
            raise DataError(f"{target} could not be written: {error.strerror}") from error
        raise not_available(entry, folder, first_line(error)) from error


def read_prepared(entry: Entry, folder: Path) -> Dataset:
    """Reads the dataset whose `dataset_info.json` is in `folder`, of the format `array_record`.

    Raises `DataError` if the files are damaged or hold another dataset.
    """
    arrays = []
    for split in SPLITS:
        with reading(folder):
            builder: Any = tfds.builder_from_directory(folder)
            source = builder.as_data_source(split)
            images = np.empty((len(source), *entry.image_shape), np.uint8)
            labels = np.empty(len(source), np.int32)
            for i in tqdm(range(len(source)), desc="Reading examples", disable=None):
                example = source[i]
                images[i], labels[i] = example["image"], example["label"]
        entry.check(split, images, labels, folder)
        arrays += [images, labels]
    return describe_source(make_dataset(*arrays), entry.title)
