"""The original files of MNIST and CIFAR: read right, and refused when they are not whole."""

import io
import os
import pickle
import tarfile

import numpy as np
import original_files
import pytest

from data import DataError
from data.archives import read_cifar, read_idx

CIFAR_FILES = [
    ("cifar10", "cifar-10-binary.tar.gz"),
    ("cifar10", "cifar-10-python.tar.gz"),
    ("cifar100", "cifar-100-binary.tar.gz"),
    ("cifar100", "cifar-100-python.tar.gz"),
]


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "cut":
        content = content[: len(content) // 2]
    elif how == "flip":
        content[-12] ^= 0x10  # of what is compressed; the last 8 bytes are checksum and length
    elif how == "checksum":
        content[-6] ^= 1
    elif how == "other":
        content = b"<html>404</html>"
    path.write_bytes(content)
    return bytes(content)


@pytest.mark.parametrize("split", ["train", "test"])
def test_idx_files(split, tmp_path):
    original_files.write_idx(tmp_path)
    images, labels, path = read_idx({path.name: path for path in tmp_path.iterdir()}, split)
    expected_images, expected_labels = original_files.rows(split, (28, 28))
    np.testing.assert_array_equal(images, expected_images[..., None])
    np.testing.assert_array_equal(labels, expected_labels)
    assert path.name == ("train" if split == "train" else "t10k") + "-labels-idx1-ubyte.gz"


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(("name", "file"), CIFAR_FILES)
def test_cifar_archives(name, file, split, tmp_path):
    path = tmp_path / file
    original_files.write_cifar(path, name)
    images, labels, where = read_cifar(name, {file: path}, split)
    expected_images, expected_labels = original_files.rows(split, (32, 32, 3))
    np.testing.assert_array_equal(images, expected_images)
    np.testing.assert_array_equal(labels[:, -1], expected_labels)
    assert labels.shape[1] == (1 if name == "cifar10" else 2)
    assert where == path


@pytest.mark.parametrize("how", ["cut", "flip", "checksum", "other"])
@pytest.mark.parametrize(("name", "file"), CIFAR_FILES)
def test_damaged_archives_are_named_and_left_alone(name, file, how, tmp_path):
    path = tmp_path / file
    original_files.write_cifar(path, name)
    left = damage(path, how)
    with pytest.raises(DataError, match=f"{file} is truncated or damaged"):
        read_cifar(name, {file: path}, "test")
    assert path.read_bytes() == left


@pytest.mark.parametrize("how", ["cut", "flip", "checksum", "other"])
@pytest.mark.parametrize("file", ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"])
def test_damaged_idx_files_are_named_and_left_alone(file, how, tmp_path):
    original_files.write_idx(tmp_path)
    left = damage(tmp_path / file, how)
    with pytest.raises(DataError, match=f"{file} is truncated or damaged"):
        read_idx({path.name: path for path in tmp_path.iterdir()}, "test")
    assert (tmp_path / file).read_bytes() == left


def test_files_that_changed_places_are_noticed(tmp_path):
    original_files.write_idx(tmp_path)
    files = {path.name: path for path in tmp_path.iterdir()}
    files["train-images-idx3-ubyte.gz"] = files["train-labels-idx1-ubyte.gz"]
    with pytest.raises(DataError, match="its magic number is 2049, not 2051"):
        read_idx(files, "train")


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("data.archives.gzip.open", refuse)
    path = tmp_path / "cifar-10-binary.tar.gz"
    with pytest.raises(DataError, match=r"binary\.tar\.gz cannot be read: Permission denied"):
        read_cifar("cifar10", {path.name: path}, "test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), r"are \(4, 32, 32, 3\) uint8"),
        (lambda data: data.astype(np.float64), r"are \(4, 3072\) float64"),
        (lambda data: data.ravel(), r"are \(12288,\) uint8"),
        (lambda data: data.tolist(), "are list"),
    ],
)
@pytest.mark.parametrize(
    ("name", "file"), [("cifar10", "cifar-10-python.tar.gz"), ("cifar100", "cifar-100-python.tar.gz")]
)
def test_pickles_of_other_arrays_are_refused(name, file, change, message, tmp_path, monkeypatch):
    real = original_files._pickled
    monkeypatch.setattr(
        original_files, "_pickled", lambda name, labels, planes: real(name, labels, change(planes))
    )
    original_files.write_cifar(tmp_path / file, name)
    with pytest.raises(DataError, match=rf"{file} .*its data should be .* \(n, 3072\) uint8, but {message}"):
        read_cifar(name, {file: tmp_path / file}, "test")


def test_idx_files_of_other_pictures_are_named(tmp_path, monkeypatch):
    real = original_files.rows
    monkeypatch.setattr(original_files, "rows", lambda split, shape: real(split, (32, 32)))
    original_files.write_idx(tmp_path)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz holds images of 32 x 32 pixels"):
        read_idx({path.name: path for path in tmp_path.iterdir()}, "train")


def write_member(path, name, content):
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))


def test_an_archive_that_lacks_a_file_is_noticed(tmp_path):
    path = tmp_path / "cifar-10-binary.tar.gz"
    write_member(path, "test_batch.bin", bytes(3073))
    with pytest.raises(DataError, match=r"it has no data_batch_1\.bin"):
        read_cifar("cifar10", {path.name: path}, "train")


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    path = tmp_path / "cifar-100-python.tar.gz"
    write_member(path, "test", pickle.dumps({"data": Harm()}, protocol=2))
    with pytest.raises(DataError, match=r"it holds posix\.mkdir"):
        read_cifar("cifar100", {path.name: path}, "test")
    assert not (tmp_path / "harm").exists()
