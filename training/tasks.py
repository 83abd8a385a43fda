"""The tasks: a dataset, a network and the schedule that the paper, or we for laptop size, chose for them."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

from flax import nnx

from data import Dataset, mnist5k
from models.mlp import MLP


class Task(NamedTuple):
    """One row of the table of tasks.

    Attributes:
      load: `load(seed=...)` returns the images and their classes.
      build: `build(rngs)` returns the network.
      input_shape: shape of one image.
      train_size: number of training images.
      batch_size: images a step; `train_size` means full-batch training.
      epochs: passes over the training images.
      drops: fractions of all epochs after which the learning rate is multiplied by `factor`.
      factor: see `drops`.
      rates: each optimizer's learning rate on its own.
      layca_rates: each optimizer's learning rate (the tangent of the angle of a step) with Layca.
      evaluate_every: epochs between two looks at the test images; the first and last epoch have one always.
    """

    load: Callable[..., Dataset]
    build: Callable[[nnx.Rngs], nnx.Module]
    input_shape: tuple[int, ...]
    train_size: int
    batch_size: int
    epochs: int
    drops: tuple[float, ...]
    factor: float
    rates: Mapping[str, float]
    layca_rates: Mapping[str, float]
    evaluate_every: int


# Section 6.2 and A.2.1. Momentum (not in the paper) is tested at the rate of the optimizers without memory.
_LAYCA_RATES = MappingProxyType(
    {"sgd": 3**-3, "momentum": 3**-3, "rmsprop": 3**-3, "adagrad": 3**-3, "adam": 3**-5, "sgd_amom": 3**-5}
)

# Keras' own defaults. It has none for SGD that would suit every network.
_KERAS_RATES = MappingProxyType({"rmsprop": 1e-3, "adagrad": 1e-2, "adam": 1e-3})

TASKS: Mapping[str, Task] = MappingProxyType(
    {
        "mnist5k-mlp": Task(
            load=partial(mnist5k.load, 1024),
            build=partial(MLP, width=256, batch_norm=True, norm_momentum=0.9),
            input_shape=(28, 28, 1),
            train_size=1024,
            batch_size=128,
            epochs=60,
            drops=(0.8, 0.9),
            factor=0.2,
            rates=MappingProxyType(
                {
                    **_KERAS_RATES,
                    "sgd": 3**-1,
                    "momentum": 3**-2,
                    "sgd_amom": 1.0,
                }
            ),
            layca_rates=_LAYCA_RATES,
            evaluate_every=1,
        ),
        # Section 3, on MNIST-5k: 10 training images a class, one step an epoch.
        "mnist-mlp": Task(
            load=partial(mnist5k.load, 100),
            build=MLP,
            input_shape=(28, 28, 1),
            train_size=100,
            batch_size=100,
            epochs=4000,
            drops=(),
            factor=1.0,
            rates=MappingProxyType(
                {
                    "sgd": 0.1,
                    "momentum": 0.01,
                    "rmsprop": 1e-5,
                    "adagrad": 1e-3,
                    "adam": 1e-5,
                    "sgd_amom": 0.1,
                }
            ),
            layca_rates=_LAYCA_RATES,
            evaluate_every=100,
        ),
    }
)
