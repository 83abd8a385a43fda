"""Lists the tasks (dataset, network, schedule), and decides when a run ends early."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from flax import nnx

from data import Dataset, load, mnist5k, reduce
from models.mlp import MLP
from models.resnet import ResNet
from models.vgg import VGG, WilsonVGG


class StopRule(NamedTuple):
    """Holds the rules by which the authors ended runs, applied after every epoch.

    Attributes:
      stuck_accuracy: a run ends if its training accuracy is at most this after `stuck_after` epochs.
      stuck_after: the number of epochs before `stuck_accuracy` counts.
      loss: a run ends once its training loss is at most this.
      unchanged: a run ends if its training loss stays the same for this number of epochs.
    """

    stuck_accuracy: float
    stuck_after: int
    loss: float
    unchanged: int = 3


# A run ends after this number of epochs whose loss is NaN or infinite; some runs recover from one.
NOT_FINITE = 3


def stop_reason(rule: StopRule | None, records: Sequence[Mapping[str, Any]]) -> str | None:
    """Returns why a run with these records, one per epoch, should end now, or `None` if it should go on."""
    if not records:
        return None
    losses = [record["train_loss"] for record in records]
    if len(losses) >= NOT_FINITE and losses[-NOT_FINITE:] == [None] * NOT_FINITE:
        return f"the training loss was not finite for {NOT_FINITE} epochs"
    loss, accuracy = losses[-1], records[-1]["train_accuracy"]
    if rule is None or loss is None:
        return None
    if loss <= rule.loss:
        return f"the training loss is at most {rule.loss:g}"
    if len(losses) > rule.unchanged and len(set(losses[-rule.unchanged - 1 :])) == 1:
        return f"the training loss has not changed for {rule.unchanged} epochs"
    if len(losses) > rule.stuck_after and accuracy <= rule.stuck_accuracy:
        return f"training accuracy is at most {rule.stuck_accuracy:g} after epoch {rule.stuck_after}"
    return None


class Schedule(NamedTuple):
    """Multiplies the learning rate by `factor` after each of the epochs `drops`."""

    drops: tuple[int, ...]
    factor: float = 0.2


# Sections 6.2 and A.2.1. Momentum, which is not in the paper, has the rate of SGD.
_LAYCA_RATES = MappingProxyType(
    {"sgd": 3**-3, "momentum": 3**-3, "rmsprop": 3**-3, "adagrad": 3**-3, "adam": 3**-5, "sgd_amom": 3**-5}
)


class Task(NamedTuple):
    """Describes a task.

    Attributes:
      load: `load(seed=..., data_dir=...)` returns the dataset.
      build: `build(rngs)` returns the network.
      input_shape: shape of one image.
      train_size: number of training images.
      epochs: passes over the training images.
      schedule: when the learning rate drops; scales with the number of epochs.
      rates: each optimizer's learning rate on its own.
      layca_rates: each optimizer's learning rate (the tangent of the angle of a step) with Layca.
      layca_schedule: the schedule with Layca, if it is another one.
      batch_size: images per step; `train_size` means full-batch training.
      weight_decay: Keras' L2 without Layca; with Layca it is 0.
      flip: whether training images are mirrored at random.
      max_shift: by how many pixels training images are moved at random.
      validation: whether a tenth of the training images is always held out to choose the epoch by.
      stop: when a run ends early.
      evaluate_every: epochs between two evaluations; the first and the last epoch always have one.
    """

    load: Callable[..., Dataset]
    build: Callable[[nnx.Rngs], nnx.Module]
    input_shape: tuple[int, int, int]
    train_size: int
    epochs: int
    schedule: Schedule
    rates: Mapping[str, float]
    layca_rates: Mapping[str, float] = _LAYCA_RATES
    layca_schedule: Schedule | None = None
    batch_size: int = 128
    weight_decay: float = 0.0
    flip: bool = False
    max_shift: int = 0
    validation: bool = False
    stop: StopRule | None = None
    evaluate_every: int = 1

    def schedule_with(self, layca: bool, epochs: int) -> Schedule:
        """Returns the schedule, scaled to a number of epochs."""
        drops, factor = self.layca_schedule or self.schedule if layca else self.schedule
        return Schedule(tuple(drop * epochs // self.epochs for drop in drops), factor)

    def num_training_images(self, validation: bool) -> int:
        """Counts the training images without those that are held out, a tenth of them, rounded up."""
        return self.train_size - (-(-self.train_size // 10) if validation else 0)


def _rates(sgd: float, **others: float) -> Mapping[str, float]:
    """Returns rates without Layca: SGD's suits the network; others that are not given have Keras' defaults.

    Momentum of 0.9 makes steps ten times as long; the SGD_AMom of the paper does not.
    """
    keras = {"rmsprop": 1e-3, "adagrad": 1e-2, "adam": 1e-3}
    return MappingProxyType({"sgd": sgd, "momentum": sgd / 10, "sgd_amom": sgd, **keras, **others})


def _mnist5k(train_size: int, *, seed: int, data_dir: str | None = None) -> Dataset:
    del data_dir  # embedded
    return mnist5k.load(train_size, seed)


def _small(train_size: int, *, seed: int, data_dir: str | None = None) -> Dataset:
    return reduce(load("cifar10", data_dir), train_size, seed)


def _published(name: str, *, seed: int, data_dir: str | None = None) -> Dataset:
    del seed  # split by its publishers
    return load(name, data_dir)


_MNIST5K = Task(
    load=partial(_mnist5k, 1024),
    build=partial(MLP, width=256, batch_norm=True, norm_momentum=0.9),
    input_shape=(28, 28, 1),
    train_size=1024,
    epochs=60,
    schedule=Schedule((48, 54)),
    rates=_rates(1.0, momentum=3**-2),
)
# Layca's runs without batch-norm: experiments/batchnorm.py.
_NO_NORM = _MNIST5K._replace(build=partial(MLP, width=256))
# 13 layers, and 8.
_VGG = _MNIST5K._replace(
    build=partial(VGG, channels=1, filters=(8, 16, 32), convs=(4, 4, 4), norm_momentum=0.9),
    epochs=30,
    schedule=Schedule((24, 27)),
    rates=_rates(1.0),
)
_RESNET = _MNIST5K._replace(
    build=partial(ResNet, channels=1, blocks=1, classes=10, norm_momentum=0.9),
    epochs=45,
    schedule=Schedule((36, 40)),
    rates=_rates(1.0),
)


# The networks of the paper, narrow, on CIFAR-10 at 16 x 16 pixels. All but Wilson's, which has dropout, fit
# 2,000 images within two minutes on one core. The VGG of 25 layers needs more images, and does not fit them;
# Layca gains most there.
_SMALL = Task(
    load=partial(_small, 2000),
    build=partial(VGG, filters=(16, 32, 64), convs=(3, 3, 3), norm_momentum=0.9),
    input_shape=(16, 16, 3),
    train_size=2000,
    batch_size=32,
    epochs=50,
    schedule=Schedule((40, 45, 48)),
    rates=_rates(3**-1, adam=3**-4),
)


def _on_fashion(task: Task) -> Task:
    return task._replace(
        load=partial(_published, "fashion_mnist"), train_size=60_000, epochs=10, schedule=Schedule((8, 9))
    )


_CIFAR10 = Task(
    load=partial(_published, "cifar10"),
    build=VGG,
    input_shape=(32, 32, 3),
    train_size=50_000,
    epochs=100,
    schedule=Schedule((80, 90, 97)),
    rates=_rates(1.0),
    stop=StopRule(stuck_accuracy=0.2, stuck_after=7, loss=1e-4),
)

TASKS: Mapping[str, Task] = MappingProxyType(
    {
        "mnist5k-mlp": _MNIST5K,
        "mnist5k-mlp-no-norm": _NO_NORM,
        # Section 3, on MNIST-5k: 10 training images per class, one step per epoch.
        "mnist-mlp": Task(
            load=partial(_mnist5k, 100),
            build=MLP,
            input_shape=(28, 28, 1),
            train_size=100,
            batch_size=100,
            epochs=4000,
            schedule=Schedule(()),
            rates=_rates(0.1, rmsprop=1e-5, adagrad=1e-3, adam=1e-5),
            evaluate_every=100,
        ),
        # The networks of Section 5, narrow, for two cores.
        "mnist5k-vgg": _VGG,
        "mnist5k-resnet": _RESNET,
        "fashion-vgg": _on_fashion(_VGG),
        "fashion-resnet": _on_fashion(_RESNET),
        "cifar16-vgg10": _SMALL._replace(rates=_rates(3**-2, adam=3**-4)),
        "cifar16-vgg25": _SMALL._replace(
            load=partial(_small, 10_000),
            build=partial(VGG, filters=(8, 16, 32), convs=(8, 8, 8), norm_momentum=0.9),
            train_size=10_000,
            batch_size=64,
            epochs=30,
            schedule=Schedule((24, 27, 29)),
            rates=_rates(3**-1, momentum=3**-2, adam=3**-4),
        ),
        "cifar16-resnet20": _SMALL._replace(
            build=partial(ResNet, filters=(8, 16, 32), blocks=3, classes=10, norm_momentum=0.9)
        ),
        # c10-cnn2 without its last stage: the images are too small for it.
        "cifar16-wilson": _SMALL._replace(
            build=partial(
                WilsonVGG, filters=(16, 32, 64, 64), convs=(2, 2, 3, 3), hidden=64, norm_momentum=0.9
            ),
            weight_decay=5e-4,
            flip=True,
        ),
        # Section 5.
        "c10-cnn1": _CIFAR10,
        "c100-resnet": Task(
            load=partial(_published, "cifar100"),
            build=ResNet,
            input_shape=(32, 32, 3),
            train_size=50_000,
            epochs=120,
            schedule=Schedule((70, 90, 105, 115)),
            rates=_rates(3**-1),
            stop=StopRule(stuck_accuracy=0.1, stuck_after=7, loss=1e-3),
        ),
        "tiny-cnn": Task(
            load=partial(_published, "tiny_imagenet"),
            build=partial(
                VGG, filters=(32, 64, 128, 256, 512), convs=(2,) * 5, classes=200, norm_momentum=0.9
            ),
            input_shape=(64, 64, 3),
            train_size=100_000,
            epochs=80,
            schedule=Schedule((70,)),
            rates=_rates(3**-1),
            validation=True,
            stop=StopRule(stuck_accuracy=0.2, stuck_after=10, loss=1e-3),
        ),
        # Sections 6.2 and 6.3.
        "c10-cnn2": _CIFAR10._replace(
            build=WilsonVGG,
            epochs=250,
            schedule=Schedule(tuple(range(25, 250, 25)), 0.5),
            layca_schedule=Schedule((100, 170, 220)),
            rates=_rates(0.5, rmsprop=3e-4, adam=3e-4, adagrad=0.01),
            weight_decay=5e-4,
            flip=True,
            stop=None,
        ),
    }
)
