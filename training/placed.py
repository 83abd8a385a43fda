"""A dataset on the devices, for one run or for several one after the other."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from data import Dataset, Scale, Source, hold_out
from training.devices import Devices

# Images and their labels.
Rows = tuple[jax.Array, jax.Array]


class Placed(NamedTuple):
    """What a run trains on and looks at.

    Attributes:
      train: the images that are trained on.
      looked_at: by the name of the metric, other images and how many they are without filled up rows.
      scale: of the images that are trained on.
      source: what the dataset was read from.
    """

    train: Rows
    looked_at: Mapping[str, tuple[Rows, int]]
    scale: Scale
    source: Source | None


def place(data: Dataset, devices: Devices, held_out_by: int | None) -> Placed:
    """Puts a dataset on the devices.

    Args:
      data: the dataset.
      devices: where to.
      held_out_by: the seed that chooses a tenth of the training images to hold out; `None` holds out none.
    """

    def put(images: np.ndarray, labels: np.ndarray) -> Rows:
        return devices.put_rows(images), devices.put_rows(labels)

    looked_at = {"test_accuracy": (put(data.test_images, data.test_labels), len(data.test_labels))}
    if held_out_by is not None:
        data = hold_out(data, held_out_by)
        held_out = put(data.test_images, data.test_labels), len(data.test_labels)
        looked_at["validation_accuracy"] = held_out
    return Placed(put(data.train_images, data.train_labels), looked_at, data.scale, data.source)
