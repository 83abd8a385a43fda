"""Tests what `data.load` says of damaged files, and that it changes nothing on the disk."""

import tracemalloc
from pathlib import Path

import original_files
import pytest
from bad_rows import ROWS
from damage import LAYOUTS, next_file

import data
from data import DataError


def contents(folder):
    files = (path for path in folder.rglob("*") if path.name != ".lock")
    return {path: path.read_bytes() if path.is_file() else None for path in files}


@pytest.mark.parametrize(("layout", "damage", "message"), ROWS)
def test_the_message_names_what_is_wrong_and_nothing_is_changed(
    layout, damage, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    name, write = LAYOUTS[layout]
    home = tmp_path / "datasets" / name
    home.mkdir(parents=True)
    write(home)
    damage(home)
    before = contents(tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=message) as caught:
            data.load(name, tmp_path / "datasets")
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_wherever_a_picture_is_cut_an_error_names_it(suffix, tmp_path):
    original_files.write_classes(tmp_path / "cifar10", suffix)
    path = next_file(tmp_path, "cifar10/train/bird/*")
    whole = path.read_bytes()
    for length in range(0, len(whole) - 20, 97):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=rf"train/bird/\d+\.{suffix} (cannot be read|is no )"):
            data.load("cifar10", tmp_path)


def test_a_folder_that_may_not_be_written_is_named(tmp_path, monkeypatch):
    original_files.write_idx(tmp_path)

    def refuse(*arguments):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(data, "FileLock", refuse)
    with pytest.raises(DataError, match=r"mnist/arrays\.npz could not be written: Read-only file system"):
        data.load("mnist", tmp_path)


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "exists", refuse)
        with pytest.raises(DataError, match=r"datasets cannot be read: Permission denied"):
            data.load("mnist", tmp_path / "datasets")


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    original_files.write_idx(tmp_path)
    (tmp_path / "mnist").write_text("mine")
    with pytest.raises(DataError, match=r"mnist/arrays\.npz could not be written"):
        data.load("mnist", tmp_path)
    assert (tmp_path / "mnist").read_text() == "mine"
