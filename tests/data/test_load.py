"""Tests where `data.load` finds datasets, and that it prepares them once."""

import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import original_files
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download import downloader
from tensorflow_datasets.core.hashing import Hasher

import data
from data import DataError, catalog, files, mnist
from data.entry import SPLITS, stored_order

SHAPES = {"mnist": (28, 28, 1), "fashion_mnist": (28, 28, 1), "cifar10": (32, 32, 3), "cifar100": (32, 32, 3)}


def assert_loaded(loaded, name):
    """Checks that the dataset has everything that was written, in any order."""
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
        if path.is_file() and path.name not in ("arrays.npz", ".lock"):
            path.unlink()
    second = data.load(name, tmp_path)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_debians_package_is_enough(tmp_path, monkeypatch):
    write(tmp_path / "system", "fashion_mnist")
    entry = catalog.CATALOG["fashion_mnist"]._replace(system_folder=tmp_path / "system")
    monkeypatch.setattr(catalog, "CATALOG", {"fashion_mnist": entry})
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "home"))
    assert_loaded(data.load("fashion_mnist"), "fashion_mnist")
    assert (tmp_path / "home" / "fashion_mnist" / "arrays.npz").exists()


class Mnist(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Stores the rows of `original_files` as tensorflow-datasets stores those of MNIST."""

    name = "mnist"
    VERSION = tfds.core.Version("3.0.1")

    def _info(self):
        image, label = tfds.features.Image(shape=SHAPES["mnist"]), tfds.features.ClassLabel(num_classes=10)
        features = tfds.features.FeaturesDict({"image": image, "label": label})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split):
        images, labels = original_files.rows(split, SHAPES["mnist"])
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield i, {"image": Image.fromarray(image[..., 0]), "label": int(label)}


@pytest.fixture(scope="module")
def prepared_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    Mnist(data_dir=folder).download_and_prepare(file_format="array_record")
    return folder


@pytest.fixture
def prepared(prepared_once, tmp_path):
    shutil.copytree(prepared_once, tmp_path, dirs_exist_ok=True)
    return tmp_path / "mnist" / "3.0.1"


def test_what_tensorflow_datasets_has_prepared_is_used_and_equals_the_original(prepared, tmp_path):
    loaded = data.load("mnist", tmp_path)
    assert_loaded(loaded, "mnist")
    write(tmp_path / "original", "mnist")
    assert loaded.source == data.load("mnist", tmp_path / "original").source


def test_what_only_tensorflow_can_read_is_ignored(prepared, tmp_path):
    for path in prepared.glob("*array_record*"):
        path.rename(prepared / path.name.replace("array_record", "tfrecord"))
    with pytest.raises(DataError, match="could not be fetched"):
        data.load("mnist", tmp_path)
    write(tmp_path, "mnist")
    assert_loaded(data.load("mnist", tmp_path), "mnist")


@pytest.mark.parametrize("split", SPLITS)
def test_rows_are_ordered_by_the_hash_of_tensorflow_datasets(split):
    keys = ["n01/n01_0.JPEG", "n02/n02_10.JPEG", *range(50)]
    hashes = [Hasher(split).hash_key(key) for key in keys]
    assert stored_order(split, keys) == np.argsort(np.array(hashes, object)).tolist()


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


def test_when_a_download_fails_the_message_says_what_to_put_where_too(tmp_path, monkeypatch):
    """The server answers, but tensorflow-datasets cannot fetch from it."""
    monkeypatch.setattr(files, "reachable", lambda url: True)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz -> .*cifar10/cifar-10-binary"):
        data.load("cifar10", tmp_path)
    assert downloader.MAX_RETRIES == 0
    assert not (tmp_path / "cifar10" / "arrays.npz").exists()


def test_without_tensorflow_datasets_the_message_says_what_to_install(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "find_spec", lambda name: None)
    install = re.escape('is not installed: pip install -e ".[datasets]"')
    with pytest.raises(DataError, match=rf"mnist/3\.0\.1 was written by .*, which {install}"):
        data.load("mnist", tmp_path)
    with pytest.raises(DataError, match=rf"(?s), which downloads it, {install}.* -> .*cifar-10-binary"):
        data.load("cifar10", tmp_path)
    write(tmp_path, "mnist")
    assert_loaded(data.load("mnist", tmp_path), "mnist")


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


def test_an_incomplete_set_of_files_does_not_count(tmp_path):
    write(tmp_path, "mnist")
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="could not be fetched"):
        data.load("mnist", tmp_path)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("mnist-train.array_record-00000-of-00001", lambda content: content[:100] + content[101:]),
        ("mnist-test.array_record-00000-of-00001", lambda content: content[: len(content) // 2]),
        ("dataset_info.json", lambda content: content[:100]),
        ("features.json", lambda content: b""),
    ],
)
def test_damaged_prepared_files_are_named_and_left_alone(file, damage, prepared, tmp_path):
    (prepared / file).write_bytes(damage((prepared / file).read_bytes()))
    left = {path: path.read_bytes() for path in prepared.iterdir()}
    with pytest.raises(DataError, match=r"mnist/3\.0\.1 cannot be read"):
        data.load("mnist", tmp_path)
    assert left == {path: path.read_bytes() for path in prepared.iterdir()}
    # The original files come first, so that the damaged ones do not matter.
    write(tmp_path, "mnist")
    assert_loaded(data.load("mnist", tmp_path), "mnist")


def test_prepared_rows_are_counted(prepared, tmp_path, monkeypatch):
    entry = catalog.CATALOG["mnist"]._replace(test_counts=(1, 2, 2))
    monkeypatch.setattr(catalog, "CATALOG", {"mnist": entry})
    with pytest.raises(DataError, match=r"mnist/3\.0\.1 should hold test images .* holds \(4, 28, 28, 1\)"):
        data.load("mnist", tmp_path)


def test_of_two_that_prepare_at_once_one_waits_and_reads_what_the_other_made(tmp_path, monkeypatch):
    write(tmp_path, "mnist")
    entry, started, go_on = catalog.CATALOG["mnist"], threading.Event(), threading.Event()
    read = []

    def slow(entry, files, split):
        read.append(split)
        started.set()
        assert go_on.wait(60)
        return mnist.MNIST.read(entry, files, split)

    monkeypatch.setattr(catalog, "CATALOG", {"mnist": entry._replace(read=slow)})
    with ThreadPoolExecutor() as pool:
        first = pool.submit(data.load, "mnist", tmp_path)
        assert started.wait(60)
        second = pool.submit(data.load, "mnist", tmp_path)
        assert not wait([second], timeout=0.2).done
        go_on.set()
        assert first.result(60).source == second.result(60).source
    assert read == ["train", "test"]


def test_what_killed_processes_left_is_removed(tmp_path):
    write(tmp_path, "mnist")
    (tmp_path / "mnist" / "incomplete.X1Y2_3.0.1").mkdir(parents=True)
    (tmp_path / "mnist" / "incomplete.X1Y2_3.0.1" / "mnist-train.array_record").write_text("half")
    (tmp_path / "mnist" / "arrays.npz.123.part").write_text("half")
    data.load("mnist", tmp_path)
    assert sorted(path.name for path in (tmp_path / "mnist").iterdir()) == [".lock", "arrays.npz"]


def test_a_full_disk_while_downloading_is_not_a_missing_network(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "reachable", lambda url: True)
    monkeypatch.setattr(tfds.download, "DownloadManager", full)
    with pytest.raises(DataError, match=r"downloads could not be written: No space left on device$"):
        data.load("mnist", tmp_path)
