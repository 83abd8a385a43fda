"""Where datasets are kept, which files somebody has put there, and what to say when there are none."""

import gzip
import os
import pickle
import socket
import tarfile
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from data.catalog import find_entry
from data.dataset import DataError

# Debian's packages of datasets.
SYSTEM_FOLDERS: Mapping[str, Path] = {"fashion_mnist": Path("/usr/share/datasets/fashion-mnist")}


def data_folder(data_dir: str | os.PathLike[str] | None) -> Path:
    """`data_dir`, or where tensorflow-datasets keeps its own: `TFDS_DATA_DIR`, `~/tensorflow_datasets`."""
    folder = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    return folder.expanduser().absolute()


def fetched_by_hand(name: str, folder: Path) -> dict[str, Path]:
    """The files of a dataset, by name, from the first place that has a whole set; empty if none has."""
    manual = folder / "downloads" / "manual"
    places = [folder / name, folder, manual / name, manual]
    if name in SYSTEM_FOLDERS:
        places.append(SYSTEM_FOLDERS[name])
    entry = find_entry(name)
    for place in places:
        for files in (entry.files, *entry.alternatives):
            if all((place / file).exists() for file in files):
                return {file: place / file for file in files}
    return {}


def has_tfds(name: str, folder: Path) -> bool:
    """Whether tensorflow-datasets has prepared the dataset there or downloaded something of it."""
    prepared = (folder / name).glob("*/dataset_info.json")
    downloaded = (folder / "downloads" / name).rglob("*.INFO")
    return any(True for files in (prepared, downloaded) for _ in files)


def reachable(url: str) -> bool:
    """Whether something answers there within half a second (or could, behind a proxy)."""
    if urllib.request.getproxies().keys() - {"no"}:
        return True
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname, 443 if parts.scheme == "https" else 80), timeout=0.5):
            return True
    except OSError:
        return False


def not_available(name: str, folder: Path, reason: str) -> DataError:
    """An error that says which files to put where, and what runs without them."""
    entry = find_entry(name)
    lines = [
        f"{name} is not in {folder} and could not be fetched: {reason}.",
        "Fetch what stands on the left, put it where the right says, and run this again:",
        *(f"  {url} -> {folder / name / file}" for url, file in zip(entry.urls, entry.files, strict=True)),
        *(f"  ({' '.join(files)} in that folder will do as well)" for files in entry.alternatives),
        f"  (pictures in {folder / name}/{{train,test}}/CLASS/*.{{png,jpg}} will do as well)",
        *([entry.remark] if entry.remark else []),
        "--data-dir or the variable TFDS_DATA_DIR names another folder.",
        "Real data that needs no download: python train.py --task mnist5k-mlp",
    ]
    return DataError("\n".join(lines))


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what goes wrong while a file is read into a `DataError` that names the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing") from error
    except PermissionError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (
        OSError,  # gzip.BadGzipFile and PIL's errors among them
        EOFError,
        ValueError,
        LookupError,
        RuntimeError,  # a zip archive that asks for what zipfile cannot do
        pickle.UnpicklingError,
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise DataError(
            f"{path} is truncated or damaged ({error}). It was left as it is and not used; move it away or"
            " fetch it again."
        ) from error


def check_depth(path: Path, content: bytes) -> None:
    """Raises `DataError` if a picture is a PNG file of 16 bits, which Pillow clips to 8."""
    # Signature, length and name of the header, width, height, bits.
    if content.startswith(b"\x89PNG") and content[24:25] > b"\x08":
        raise DataError(f"{path} has {content[24]} bits per channel; pictures must have 8 or fewer")


def read_gzip(path: Path) -> bytes:
    """All of it; reading to the end checks gzip's checksum."""
    with gzip.open(path) as stream:
        return stream.read()
