"""Datasets as arrays: embedded images and text, and those that `load` has tensorflow-datasets prepare."""

import os

from data import cache
from data.catalog import find_entry
from data.dataset import DataError, Dataset, Scale, hold_out, standardise
from data.files import data_folder, fetched_by_hand, has_tfds, not_available, reachable

__all__ = ["DataError", "Dataset", "Scale", "hold_out", "load", "standardise"]


def load(name: str, data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """A dataset of the paper; prepared when it is first asked for, and then read from one file.

    Args:
      name: `mnist`, `fashion_mnist`, `cifar10`, `cifar100` or `tiny_imagenet`.
      data_dir: where tensorflow-datasets keeps its datasets. By default the variable `TFDS_DATA_DIR` says
        where, and without it `~/tensorflow_datasets`. The original files are taken from there or from its
        folders `NAME`, `downloads/manual` and `downloads/manual/NAME`; if they are nowhere, they are
        downloaded.

    Returns:
      All images of the dataset; `arrays.npz` in the folder `NAME` of `data_dir` keeps them.

    Raises:
      DataError: there is no such dataset, it cannot be had (the message says which files to put where), or a
        file is damaged. Damaged files are named and left as they are.
    """
    entry = find_entry(name)
    folder = data_folder(data_dir)
    path = folder / name / "arrays.npz"
    if path.exists():
        return cache.read(name, path)
    sources = fetched_by_hand(name, folder)
    if not sources and not has_tfds(name, folder) and not reachable(entry.urls[0]):
        raise not_available(name, folder, "its server does not answer")
    # tensorflow-datasets takes a second to import, and only preparing needs it.
    from data.builders import prepare

    data = prepare(name, folder, sources)
    cache.write(path, data)
    return data
