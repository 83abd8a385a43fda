"""Pictures in class folders, `{train,test}/CLASS/*.{png,jpg}`, as fast.ai and Kaggle distribute CIFAR.

Classes are numbered in the order of their folders' names, which for CIFAR is the order of the original
labels. A folder above the class's, as fast.ai has for the superclasses of CIFAR-100, does not matter.
"""

from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from data.dataset import DataError, Dataset, describe_source, make_dataset
from data.entry import SPLITS, Entry
from data.files import reading
from data.pictures import decode

_SUFFIXES = (".png", ".jpg", ".jpeg")


def present(folder: Path) -> bool:
    """Returns whether `folder` has one of the splits as a folder."""
    return any((folder / split).is_dir() for split in SPLITS)


def read(entry: Entry, folder: Path) -> Dataset:
    """Reads all pictures of a dataset, ordered by class and then by the name of the file.

    Raises `DataError`, which names the file or folder, if there are more or fewer classes or pictures than
    the dataset has, or if a picture is damaged or has another size or format.
    """
    with reading(folder):
        listed = {split: _list(entry, split, folder / split) for split in SPLITS}
    if others := sorted(listed["train"].keys() ^ listed["test"].keys()):
        raise DataError(f"{folder} has class folders in one split only: {', '.join(others[:3])}")
    arrays: list[np.ndarray] = []
    formats = ["PNG", "JPEG"]
    qualities = set()
    for split, classes in listed.items():
        paths = [path for files in classes.values() for path in files]
        images = np.empty((len(paths), *entry.image_shape), np.uint8)
        for i, path in enumerate(tqdm(paths, desc="Reading pictures", disable=None)):
            with reading(path):
                content = path.read_bytes()
            images[i], image = decode(path, content, entry.image_shape, formats)
            formats = [str(image.format)]  # All must be of the first one's.
            if image.format == "JPEG":
                qualities.add(_quality(tuple(image.quantization[0])))  # pyrefly: ignore[missing-attribute]
        arrays += [images, np.repeat(np.arange(len(classes)), entry.counts(split))]
    data = make_dataset(*arrays)
    return describe_source(data, entry.title, formats[0], qualities)


def _list(entry: Entry, split: str, folder: Path) -> dict[str, list[Path]]:
    """Returns the pictures of a split by class, both in the order of their names, if they are all there."""
    if not folder.is_dir():
        raise DataError(f"{folder} is missing: class folders need {' and '.join(SPLITS)}")
    classes: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith("."):
            if path.parent == folder:
                raise DataError(f"{path} is in no class folder: it should be in {folder}/CLASS")
            files = classes.setdefault(path.parent.name, [])
            if files and files[0].parent != path.parent:
                raise DataError(f"{files[0].parent} and {path.parent} are folders of the same class")
            files.append(path)
    counts = entry.counts(split)
    if len(classes) != len(counts):
        raise DataError(
            f"{folder} holds pictures in {len(classes)} class folders; {entry.title} has {len(counts)}"
            " classes"
        )
    for label, count in zip(sorted(classes), counts, strict=True):
        if len(classes[label]) != count:
            raise DataError(
                f"the class folder {label} of {folder} holds {len(classes[label]):,} pictures; {entry.title}"
                f" has {count:,} of that class in its {split} split"
            )
    return dict(sorted(classes.items()))


@cache
def _quality(table: tuple[int, ...]) -> int:
    """Estimates the quality of a JPEG file: that at which libjpeg writes the nearest table of luminance."""
    return min(range(1, 101), key=lambda quality: np.abs(np.subtract(_libjpeg_table(quality), table)).sum())


@cache
def _libjpeg_table(quality: int) -> list[int]:
    file = BytesIO()
    Image.new("L", (8, 8)).save(file, "jpeg", quality=quality)
    return Image.open(file).quantization[0]  # pyrefly: ignore[missing-attribute]
