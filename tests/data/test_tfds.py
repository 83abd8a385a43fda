"""`data.load` through tensorflow-datasets: the mock, original files of every kind, what is refused."""

import json

import numpy as np
import original_files
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import downloader

import data
from data import DataError, catalog, files

SHAPES = {"mnist": (28, 28, 1), "fashion_mnist": (28, 28, 1), "cifar10": (32, 32, 3), "cifar100": (32, 32, 3)}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    original_files.shrink(monkeypatch, *SHAPES)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """No server answers and Debian's packages are not there, whatever machine this runs on."""
    monkeypatch.setattr(files, "SYSTEM_FOLDERS", {})
    monkeypatch.setattr(files.urllib.request, "getproxies", dict)

    def refuse(address, timeout):
        raise ConnectionRefusedError

    monkeypatch.setattr(files.socket, "create_connection", refuse)


def assert_loaded(loaded, name):
    """Whether everything that was written is there, in whatever order."""
    parts = (loaded.train_images, loaded.train_labels), (loaded.test_images, loaded.test_labels)
    for split, (images, labels) in zip(("train", "test"), parts, strict=True):
        expected_images, expected_labels = original_files.rows(split, SHAPES[name])
        assert images.dtype == np.uint8
        assert labels.dtype == np.int32
        assert images.shape == (len(expected_labels), *SHAPES[name])
        assert {(i.tobytes(), int(k)) for i, k in zip(images, labels, strict=True)} == {
            (i.tobytes(), int(k)) for i, k in zip(expected_images, expected_labels, strict=True)
        }
    assert loaded.scale.mean == pytest.approx(loaded.train_images.mean())
    assert loaded.scale.std == pytest.approx(loaded.train_images.std())


def write(place, name, file=None):
    if file is None:
        original_files.write_idx(place)
    else:
        original_files.write_cifar(place / file, name)


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100"])
def test_the_mock_of_tensorflow_datasets(name, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "reachable", lambda url: True)
    with tfds.testing.mock_data(num_examples=20):
        examples = list(map(tfds.data_source(name, split="train").__getitem__, range(20)))
        entry = catalog.CATALOG[name]
        classes = {"mnist": 10, "cifar10": 10, "cifar100": 100}[name]
        counts = tuple(np.bincount([example["label"] for example in examples], minlength=classes))
        entry = entry._replace(train_counts=counts, test_counts=counts)
        monkeypatch.setattr(catalog, "CATALOG", {name: entry})
        loaded = data.load(name, tmp_path)
    np.testing.assert_array_equal(loaded.train_images, [example["image"] for example in examples])
    np.testing.assert_array_equal(loaded.test_labels, [example["label"] for example in examples])
    assert loaded.train_images.shape[1:] == SHAPES[name]


@pytest.mark.parametrize(
    ("name", "place", "file"),
    [
        ("mnist", "mnist", None),
        ("mnist", ".", None),
        ("fashion_mnist", "downloads/manual/fashion_mnist", None),
        ("cifar10", ".", "cifar-10-binary.tar.gz"),
        ("cifar10", "cifar10", "cifar-10-python.tar.gz"),
        ("cifar100", "downloads/manual", "cifar-100-binary.tar.gz"),
        ("cifar100", ".", "cifar-100-python.tar.gz"),
    ],
)
def test_files_fetched_by_hand_are_prepared_once(name, place, file, tmp_path):
    write(tmp_path / place, name, file)
    first = data.load(name, tmp_path)
    assert_loaded(first, name)
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.name != "arrays.npz":
            path.unlink()
    second = data.load(name, tmp_path)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_debians_package_is_enough(tmp_path, monkeypatch):
    write(tmp_path / "system", "fashion_mnist")
    monkeypatch.setattr(files, "SYSTEM_FOLDERS", {"fashion_mnist": tmp_path / "system"})
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "home"))
    assert_loaded(data.load("fashion_mnist"), "fashion_mnist")
    assert (tmp_path / "home" / "fashion_mnist" / "arrays.npz").exists()


def test_what_tensorflow_datasets_has_prepared_is_used(tmp_path):
    write(tmp_path, "mnist")
    data.load("mnist", tmp_path)
    for path in [*tmp_path.glob("*.gz"), tmp_path / "mnist" / "arrays.npz"]:
        path.unlink()
    assert_loaded(data.load("mnist", tmp_path), "mnist")


def test_what_only_tensorflow_can_read_is_prepared_again_beside_it(tmp_path):
    write(tmp_path, "mnist")
    prepared = tmp_path / "mnist" / "3.0.1"
    prepared.mkdir(parents=True)
    info = {"name": "mnist", "version": "3.0.1", "fileFormat": "tfrecord"}
    (prepared / "dataset_info.json").write_text(json.dumps(info))
    (prepared / "features.json").write_text(json.dumps({}))
    assert_loaded(data.load("mnist", tmp_path), "mnist")
    assert sorted(path.name for path in prepared.iterdir()) == ["dataset_info.json", "features.json"]


def test_the_default_folder_is_that_of_tensorflow_datasets(monkeypatch, tmp_path):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.data_folder(None) == tmp_path / "tensorflow_datasets"
    monkeypatch.setenv("TFDS_DATA_DIR", "~/elsewhere")
    assert files.data_folder(None) == tmp_path / "elsewhere"
    assert files.data_folder("~/here") == tmp_path / "here"


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100", "tiny_imagenet"])
def test_offline_the_message_says_what_to_put_where(name, tmp_path):
    with pytest.raises(DataError) as caught:
        data.load(name, tmp_path / "home")
    message = str(caught.value)
    for url in catalog.CATALOG[name].urls:
        assert f"{url} -> {tmp_path / 'home' / name / url.split('/')[-1]}" in message
    assert "python train.py --task mnist5k-mlp" in message
    assert "--data-dir" in message
    assert not (tmp_path / "home").exists()


def test_what_fails_on_the_way_says_the_same(tmp_path, monkeypatch):
    """A server that answers at first, and then tensorflow-datasets cannot fetch from it."""
    monkeypatch.setattr(data, "reachable", lambda url: True)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz -> .*cifar10/cifar-10-binary"):
        data.load("cifar10", tmp_path)
    assert downloader.MAX_RETRIES == 0
    assert not (tmp_path / "cifar10" / "arrays.npz").exists()


def test_a_server_that_answers_is_reachable(monkeypatch):
    addresses = []

    class Connection:
        def __init__(self, address, timeout):
            addresses.append(address)

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            pass

    monkeypatch.setattr(files.socket, "create_connection", Connection)
    assert files.reachable("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz")
    assert files.reachable("http://cs231n.stanford.edu/tiny-imagenet-200.zip")
    assert addresses == [("www.cs.toronto.edu", 443), ("cs231n.stanford.edu", 80)]


def test_behind_a_proxy_only_the_proxy_knows(monkeypatch):
    assert not files.reachable("https://example.org")
    monkeypatch.setattr(files.urllib.request, "getproxies", lambda: {"no": "localhost"})
    assert not files.reachable("https://example.org")
    monkeypatch.setattr(files.urllib.request, "getproxies", lambda: {"https": "http://proxy:3128"})
    assert files.reachable("https://example.org")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar-10", "Did you mean cifar10?"),
        ("fashionmnist", "Did you mean fashion_mnist?"),
        ("imagenet", "Did you mean tiny_imagenet?"),
        ("svhn_cropped", "there are mnist, fashion_mnist, cifar10, cifar100, tiny_imagenet"),
    ],
)
def test_unknown_names(name, message, tmp_path):
    with pytest.raises(DataError) as caught:
        data.load(name, tmp_path)
    assert message in str(caught.value)


def test_an_incomplete_set_of_files_is_none(tmp_path):
    write(tmp_path, "mnist")
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="could not be fetched"):
        data.load("mnist", tmp_path)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ((3, 2, 5), "labels-idx1-ubyte.gz should hold the 10 train images of mnist, but holds 9"),
        ((4, 1, 4), "is not the train part of mnist: of class 0 that has 4 images, not 3"),
        ((5, 4), "is not the train part of mnist: that has 2 classes, and a label in there is 2"),
    ],
)
def test_other_rows_than_known_are_refused_before_anything_is_kept(counts, message, tmp_path, monkeypatch):
    write(tmp_path, "mnist")
    entry = catalog.CATALOG["mnist"]._replace(train_counts=counts)
    monkeypatch.setattr(catalog, "CATALOG", {"mnist": entry})
    with pytest.raises(DataError, match=message):
        data.load("mnist", tmp_path)
    assert list((tmp_path / "mnist").iterdir()) == []


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("mnist-train.array_record-00000-of-00001", flip),
        ("mnist-test.array_record-00000-of-00001", cut),
        ("mnist-train.array_record-00000-of-00001", lambda path: path.unlink()),
        ("dataset_info.json", cut),
    ],
)
def test_damaged_prepared_files_are_named_and_left_alone(file, damage, tmp_path):
    write(tmp_path, "mnist")
    data.load("mnist", tmp_path)
    (tmp_path / "mnist" / "arrays.npz").unlink()
    damage(tmp_path / "mnist" / "3.0.1" / file)
    left = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(DataError, match=r"tensorflow-datasets prepared in .*mnist.* is damaged"):
        data.load("mnist", tmp_path)
    assert left == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_prepared_rows_are_counted(tmp_path, monkeypatch):
    write(tmp_path, "mnist")
    data.load("mnist", tmp_path)
    (tmp_path / "mnist" / "arrays.npz").unlink()
    entry = catalog.CATALOG["mnist"]._replace(test_counts=(1, 2, 2))
    monkeypatch.setattr(catalog, "CATALOG", {"mnist": entry})
    with pytest.raises(DataError, match=r"mnist/3\.0\.1 should hold the 5 test images of mnist, but holds 4"):
        data.load("mnist", tmp_path)
