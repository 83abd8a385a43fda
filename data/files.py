"""Where the files of datasets are, and what is said when they are missing or damaged."""

import os
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from data.dataset import DataError
from data.entry import Entry
from data.writing import first_line


def data_folder(data_dir: str | os.PathLike[str] | None) -> Path:
    """Returns `data_dir`, or by default `$TFDS_DATA_DIR` or tensorflow-datasets' `~/tensorflow_datasets`."""
    folder = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    return folder.expanduser().absolute()


def fetched_by_hand(entry: Entry, folder: Path) -> dict[str, Path]:
    """Returns the files of a dataset, by name, from the first place that has a whole set, or none."""
    manual = folder / "downloads" / "manual"
    places = [folder / entry.name, folder, manual / entry.name, manual, entry.system_folder]
    for place in filter(None, places):
        for files in (entry.files, *entry.alternatives):
            if all((place / file).exists() for file in files):
                return {file: place / file for file in files}
    return {}


def prepared_by_tfds(entry: Entry, folder: Path) -> Path | None:
    """Returns the folder that tensorflow-datasets prepared, if it can be read without TensorFlow."""
    files = (folder / entry.name).glob(f"*/{entry.name}-train.array_record-*")
    return max((file.parent for file in files), default=None)


def downloaded_by_tfds(entry: Entry, folder: Path) -> bool:
    """Returns whether tensorflow-datasets has downloaded something of the dataset."""
    return any((folder / "downloads" / entry.name).rglob("*.INFO"))


def reachable(url: str) -> bool:
    """Returns whether something answers there within half a second, or could behind a proxy."""
    if urllib.request.getproxies().keys() - {"no"}:
        return True
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname, 443 if parts.scheme == "https" else 80), timeout=0.5):
            return True
    except OSError:
        return False


def not_available(entry: Entry, folder: Path, reason: str) -> DataError:
    """Returns an error that says which files to put where, and what runs without them."""
    home = folder / entry.name
    lines = [
        f"{entry.name} is not in {folder} and could not be fetched: {reason}.",
        "Fetch the files on the left, save them under the names on the right, and run this again:",
        *(f"  {url} -> {home / file}" for url, file in zip(entry.urls, entry.files, strict=True)),
        *(f"  ({' '.join(files)} in that folder will do as well)" for files in entry.alternatives),
        f"  (pictures in {home}/{{train,test}}/CLASS/*.{{png,jpg}} will do as well)",
        *([entry.remark] if entry.remark else []),
        "--data-dir or the variable TFDS_DATA_DIR names another folder.",
        "Real data that needs no download: python train.py --task mnist5k-mlp",
    ]
    return DataError("\n".join(lines))


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns whatever goes wrong while a file is read into a `DataError` that names the file."""
    try:
        yield
    except DataError:
        raise
    # What gzip, lzma, NumPy, pickle, Pillow, tarfile and zipfile raise for damaged files has no common class.
    except Exception as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise DataError(f"{path} cannot be read: {reason}. Repair, replace or remove it.") from error
