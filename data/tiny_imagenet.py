"""Tiny ImageNet as it is published: the folder `tiny-imagenet-200`, or the zip archive of it.

It has 200 classes in the order of `wnids.txt`, 500 training images each. The images of its `test` folder have
no labels; here as in the paper, the 50 a class of its validation folder are the test images.
"""

import os
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from data.dataset import DataError
from data.files import check_depth, reading

FOLDER = "tiny-imagenet-200"
SIZE = 64


class _Files(NamedTuple):
    """What a folder and an archive have in common; paths are relative to `tiny-imagenet-200`."""

    read: Callable[[str], bytes]
    names: Callable[[str], list[str]]


def read_images(path: Path, split: str) -> Iterator[tuple[str, bytes, int]]:
    """Key, encoded image and class of every image.

    Args:
      path: the folder or the archive.
      split: `train` or `test`.

    Yields:
      JPEG files of colour images as they are, all others as PNG files of their colours.

    Raises:
      DataError: a file is missing, damaged, or no image of 64 x 64 pixels.
    """
    files = _open(path)
    classes = {wnid: label for label, wnid in enumerate(_lines(path, files, "wnids.txt"))}
    if split == "train":
        for wnid, label in classes.items():
            folder = f"train/{wnid}/images"
            with reading(path / folder):
                names = sorted(name for name in files.names(folder) if name.endswith(".JPEG"))
            for name in names:
                yield f"{wnid}/{name}", _encoded(path, files, f"{folder}/{name}"), label
        return
    annotations = "val/val_annotations.txt"
    for row in _lines(path, files, annotations):
        name, wnid, *_ = [*row.split("\t"), ""]
        if wnid not in classes:
            raise DataError(f"{path / annotations} gives {name} the class {wnid!r}, which wnids.txt lacks")
        yield name, _encoded(path, files, f"val/images/{name}"), classes[wnid]


def _open(path: Path) -> _Files:
    if path.is_dir():
        return _Files(lambda file: (path / file).read_bytes(), lambda folder: os.listdir(path / folder))
    with reading(path):
        archive = zipfile.ZipFile(path)
    names = defaultdict(list)
    for entry in archive.namelist():
        folder, _, name = entry.removeprefix(f"{FOLDER}/").rpartition("/")
        names[folder].append(name)
    return _Files(lambda file: archive.read(f"{FOLDER}/{file}"), lambda folder: names[folder])


def _lines(path: Path, files: _Files, file: str) -> list[str]:
    with reading(path / file):
        return files.read(file).decode().splitlines()


def _encoded(path: Path, files: _Files, file: str) -> bytes:
    with reading(path / file):
        content = files.read(file)
        check_depth(path / file, content)
        image = Image.open(BytesIO(content))
        image.load()
        if image.size != (SIZE, SIZE):
            raise ValueError(f"it has {image.width} x {image.height} pixels, not {SIZE} x {SIZE}")
        if image.mode == "RGB":
            return content
        png = BytesIO()
        image.convert("RGB").save(png, "png")
        return png.getvalue()
