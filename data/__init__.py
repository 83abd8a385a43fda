"""Datasets as arrays: embedded images and text, and those that `load` finds or downloads."""

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock

from data import cache, class_folders, files
from data.catalog import find_entry
from data.dataset import (
    DataError,
    Dataset,
    Scale,
    Source,
    describe_source,
    hold_out,
    make_dataset,
    reduce,
    standardise,
)
from data.entry import SPLITS, Entry
from data.writing import reraise_os_errors

__all__ = ["DataError", "Dataset", "Scale", "Source", "hold_out", "load", "reduce", "standardise"]


def load(name: str, data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Loads a dataset of the paper. The first call prepares it while others wait; later ones read one file.

    Args:
      name: `mnist`, `fashion_mnist`, `cifar10`, `cifar100` or `tiny_imagenet`.
      data_dir: where tensorflow-datasets keeps its datasets. By default the variable `TFDS_DATA_DIR` says
        where, and without it `~/tensorflow_datasets`. The original files are taken from there or from its
        folders `NAME`, `downloads/manual` and `downloads/manual/NAME`. If they are nowhere, what
        tensorflow-datasets has prepared or downloaded is taken, or else pictures from class folders,
        `NAME/{train,test}/CLASS/*.{png,jpg}`. If there are none, the original files are downloaded.

    Returns:
      All images of the dataset. `arrays.npz` in the folder `NAME` of `data_dir` keeps them, also where
      other files are put there later. `source` tells what was read.

    Raises:
      DataError: there is no such dataset, it cannot be had (the message says which files to put where, or
        what to install), or a file is damaged or not of this dataset. Such files are named and left as they
        are.
    """
    entry = find_entry(name)
    folder = files.data_folder(data_dir)
    path = folder / name / "arrays.npz"
    with files.reading(folder):
        prepare = None if path.exists() else _find(entry, folder)
    if prepare:
        with reraise_os_errors(path, DataError):
            lock = FileLock(path.with_name(".lock")).acquire()
        with lock:
            # Another process may have prepared it meanwhile.
            if not path.exists():
                cache.write(path, prepare())
                # Killed processes leave these; tensorflow-datasets, which earlier versions used, the first.
                for left in [*path.parent.glob("incomplete.*"), *path.parent.glob("arrays.npz.*.part")]:
                    with suppress(OSError):
                        shutil.rmtree(left) if left.is_dir() else left.unlink()
    return cache.read(entry, path)


def _find(entry: Entry, folder: Path) -> Callable[[], Dataset]:
    """Returns a function that reads the dataset; raises `DataError` if it is nowhere."""
    if by_hand := files.fetched_by_hand(entry, folder):
        return lambda: _read(entry, by_hand)
    prepared, downloaded = files.prepared_by_tfds(entry, folder), files.downloaded_by_tfds(entry, folder)
    if not (prepared or downloaded) and class_folders.present(folder / entry.name):
        return lambda: class_folders.read(entry, folder / entry.name)
    if find_spec("tensorflow_datasets") is None:
        command = 'is not installed: pip install -e ".[datasets]"'
        if prepared:
            raise DataError(f"{prepared} was written by tensorflow-datasets, which {command}")
        raise files.not_available(entry, folder, f"tensorflow-datasets, which downloads it, {command}")
    if not (prepared or downloaded or files.reachable(entry.urls[0])):
        raise files.not_available(entry, folder, "its server does not answer")
    return lambda: _from_tfds(entry, folder, prepared)


def _read(entry: Entry, paths: Mapping[str, Path]) -> Dataset:
    arrays = [array for split in SPLITS for array in entry.load(paths, split)]
    return describe_source(make_dataset(*arrays), entry.title)


def _from_tfds(entry: Entry, folder: Path, prepared: Path | None) -> Dataset:
    # tensorflow-datasets takes a second to import.
    from data import tfds

    return tfds.read_prepared(entry, prepared) if prepared else _read(entry, tfds.download(entry, folder))
