"""Pictures in class folders, `{train,test}/CLASS/*.{png,jpg}`, as fast.ai and Kaggle distribute CIFAR.

Classes are numbered in the order of their folders' names, which for CIFAR is the order of the original
labels. A folder above the class's, as fast.ai has for the superclasses of CIFAR-100, does not matter.
"""

from collections.abc import Sequence
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from data.catalog import check_dataset, find_entry
from data.dataset import DataError, Dataset, describe_source, make_dataset
from data.files import check_depth, reading

SPLITS = ("train", "test")
_SUFFIXES = (".png", ".jpg", ".jpeg")


def present(folder: Path) -> bool:
    """Returns whether `folder` has one of the splits as a folder."""
    return any((folder / split).is_dir() for split in SPLITS)


def read(name: str, folder: Path) -> Dataset:
    """Reads all pictures of a dataset.

    Args:
      name: a key of the catalogue.
      folder: the folder of `train` and `test`.

    Returns:
      The dataset, ordered by class and then by the name of the file. Its source tells the format and, of
      JPEG, the quality.

    Raises:
      DataError: a split is missing, there are more or fewer classes or pictures than the dataset has, a
        file is damaged or of another size, or there are both PNG and JPEG files. The message names the
        file or folder.
    """
    entry = find_entry(name)
    listed = {split: _list(folder / split) for split in SPLITS}
    (train, test) = (set(classes) for classes in listed.values())
    if train != test:
        raise DataError(
            f"{folder} has class folders in one split only: {', '.join(sorted(train ^ test)[:3])}"
        )
    for split, classes in listed.items():
        counts = entry.counts(split)
        if len(classes) != len(counts):
            raise DataError(
                f"{folder / split} holds pictures in {len(classes)} class folders; {entry.title} has"
                f" {len(counts)} classes"
            )
        for (label, files), count in zip(classes.items(), counts, strict=True):
            if len(files) != count:
                raise DataError(
                    f"the class folder {label} of {folder / split} holds {len(files):,} pictures;"
                    f" {entry.title} has {count:,} of that class in its {split} split"
                )
    pictures = _Pictures(entry.title, entry.image_shape)
    arrays = []
    for split, classes in listed.items():
        pixels = pictures.decode([path for files in classes.values() for path in files])
        arrays += [pixels, np.repeat(np.arange(len(classes)), entry.counts(split))]
    data = make_dataset(*arrays)
    check_dataset(name, data, folder)
    return describe_source(data, entry.title, pictures.format, pictures.qualities)


def _list(folder: Path) -> dict[str, list[Path]]:
    """The pictures of a split by class, both in the order of their names."""
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
    return {label: classes[label] for label in sorted(classes)}


class _Pictures:
    """Decodes files, which must be of one format, depth and size.

    Attributes:
      format: `PNG` or `JPEG`, whatever a file's name ends in.
      qualities: of the JPEG files that were decoded.
    """

    def __init__(self, title: str, shape: tuple[int, int, int]) -> None:
        self.format = ""
        self.qualities: set[int] = set()
        self._first: Path | None = None
        self._title, self._shape = title, shape

    def decode(self, paths: Sequence[Path]) -> np.ndarray:
        """Returns the pixels of all files, `(n, height, width, channels)` uint8."""
        channels = self._shape[-1]
        pixels = np.empty((len(paths), *self._shape), np.uint8)
        for i, path in enumerate(tqdm(paths, desc="Reading pictures", disable=None)):
            with reading(path):
                try:
                    content = path.read_bytes()
                    check_depth(path, content)
                    with Image.open(BytesIO(content)) as image:
                        image.load()
                        self._check(path, image)
                        colours = np.asarray(image.convert("L" if channels == 1 else "RGB"))
                except SyntaxError as error:  # PIL's word for a PNG file whose parts do not fit
                    raise ValueError(error) from error
            pixels[i] = colours.reshape(self._shape)
        return pixels

    def _check(self, path: Path, image: Image.Image) -> None:
        height, width, _ = self._shape
        if image.size != (width, height):
            raise DataError(
                f"{path} has {image.width} x {image.height} pixels; pictures of {self._title} have {width} x"
                f" {height}"
            )
        if self._first is None:
            self._first, self.format = path, str(image.format)
        if image.format != self.format:
            raise DataError(
                f"{path} is {image.format} and {self._first} is {self.format}: all pictures must be of one"
                " format"
            )
        if image.format == "JPEG":
            self.qualities.add(_quality(tuple(image.quantization[0])))  # pyrefly: ignore[missing-attribute]


@cache
def _quality(table: tuple[int, ...]) -> int:
    """Estimates the quality of a JPEG file: that at which libjpeg writes the nearest table of luminance."""
    return min(_libjpeg_tables(), key=lambda q: np.abs(_libjpeg_tables()[q] - np.array(table)).sum())


@cache
def _libjpeg_tables() -> dict[int, np.ndarray]:
    tables = {}
    for quality in range(1, 101):
        file = BytesIO()
        Image.new("L", (8, 8)).save(file, "jpeg", quality=quality)
        tables[quality] = np.array(Image.open(file).quantization[0])  # pyrefly: ignore[missing-attribute]
    return tables
