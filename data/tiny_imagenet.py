"""Tiny ImageNet: the folder `tiny-imagenet-200`, or the zip archive of it.

Classes are numbered in the order of `wnids.txt`. The images of its folder `test` have no labels. Here as in
the paper, the split `test` is its validation folder.
"""

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.dataset import DataError
from data.entry import Entry, Rows
from data.files import reading
from data.pictures import decode

_FOLDER = "tiny-imagenet-200"


def _read(entry: Entry, files: Mapping[str, Path], split: str) -> Rows:
    (path,) = files.values()
    read = _reader(path)
    wnids = read("wnids.txt").decode(errors="replace").splitlines()
    classes, counts = {wnid: label for label, wnid in enumerate(wnids)}, entry.counts(split)
    if len(classes) != len(counts):
        raise DataError(f"{path / 'wnids.txt'} names {len(classes)} classes, not {len(counts)}")
    # File and class of every picture, by the key that tensorflow-datasets would store it with.
    pictures = {}
    listing = "wnids.txt" if split == "train" else "val/val_annotations.txt"
    if split == "train":
        for wnid, count in zip(wnids, counts, strict=True):
            for name in [f"{wnid}_{i}.JPEG" for i in range(count)]:
                pictures[f"{wnid}/{name}"] = f"train/{wnid}/images/{name}", classes[wnid]
    else:
        for row in read(listing).decode(errors="replace").splitlines():
            name, wnid, *_ = [*row.split("\t"), ""]
            if wnid not in classes:
                raise DataError(f"{path / listing} gives {name} the class {wnid!r}, which wnids.txt lacks")
            if name in pictures:
                raise DataError(f"{path / listing} lists {name} twice")
            pictures[name] = f"val/images/{name}", classes[wnid]
    images = np.empty((len(pictures), *entry.image_shape), np.uint8)
    for i, (file, _) in enumerate(tqdm(pictures.values(), desc="Reading pictures", disable=None)):
        images[i], _ = decode(path / file, read(file), entry.image_shape, ["JPEG"])
    labels = np.array([label for _, label in pictures.values()])
    return Rows(images, labels, path / listing, path / listing, keys=list(pictures))


def _reader(path: Path) -> Callable[[str], bytes]:
    """Returns what reads a file, given its path relative to `tiny-imagenet-200`."""
    with reading(path):
        archive = None if path.is_dir() else zipfile.ZipFile(path)

    def read(file: str) -> bytes:
        with reading(path / file):
            if archive is None:
                return (path / file).read_bytes()
            return archive.read(f"{_FOLDER}/{file}")

    return read


TINY_IMAGENET = Entry(
    name="tiny_imagenet",
    title="Tiny ImageNet",
    image_shape=(64, 64, 3),
    train_counts=(500,) * 200,
    test_counts=(50,) * 200,
    urls=("http://cs231n.stanford.edu/tiny-imagenet-200.zip",),
    read=_read,
    alternatives=((_FOLDER,),),
)
