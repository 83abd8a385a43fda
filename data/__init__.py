"""Datasets as arrays: embedded images and text, and those that `load` has tensorflow-datasets prepare."""

import os

from data import cache, class_folders
from data.catalog import find_entry
from data.dataset import DataError, Dataset, Scale, Source, describe_source, hold_out, reduce, standardise
from data.files import data_folder, fetched_by_hand, has_tfds, not_available, reachable

__all__ = ["DataError", "Dataset", "Scale", "Source", "hold_out", "load", "reduce", "standardise"]


def load(name: str, data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """A dataset of the paper; prepared when it is first asked for, and then read from one file.

    Args:
      name: `mnist`, `fashion_mnist`, `cifar10`, `cifar100` or `tiny_imagenet`.
      data_dir: where tensorflow-datasets keeps its datasets. By default the variable `TFDS_DATA_DIR` says
        where, and without it `~/tensorflow_datasets`. The original files are taken from there or from its
        folders `NAME`, `downloads/manual` and `downloads/manual/NAME`; if they are nowhere, pictures are
        taken from class folders, `NAME/{train,test}/CLASS/*.{png,jpg}`; if there are none, the original
        files are downloaded.

    Returns:
      All images of the dataset; `arrays.npz` in the folder `NAME` of `data_dir` keeps them, also where
      other files are put there later. `source` tells what was read.

    Raises:
      DataError: there is no such dataset, it cannot be had (the message says which files to put where), or a
        file is damaged or not of this dataset. Such files are named and left as they are.
    """
    entry = find_entry(name)
    folder = data_folder(data_dir)
    path = folder / name / "arrays.npz"
    if path.exists():
        data = cache.read(name, path)
        return describe_source(data, entry.title) if data.source is None else data
    sources = fetched_by_hand(name, folder)
    original = bool(sources) or has_tfds(name, folder)
    if not original and class_folders.present(folder / name):
        data = class_folders.read(name, folder / name)
    elif not original and not reachable(entry.urls[0]):
        raise not_available(name, folder, "its server does not answer")
    else:
        # tensorflow-datasets takes a second to import, and only preparing needs it.
        from data.builders import prepare

        data = describe_source(prepare(name, folder, sources), entry.title)
    cache.write(path, data)
    return data
