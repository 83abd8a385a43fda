"""Which tasks, seeds, epochs and alphas stand for the paper's in each preset.

`laptop` has narrow networks on MNIST-5k. So that all takes under three hours on two cores, its convolutional
network trains for two thirds of its usual epochs in Figure 2 (the schedule scales) and, but for alpha = 0,
with one seed. `small` has narrow networks on CIFAR-10 at 16 x 16 pixels, five seeds of everything, and fewer
alphas and rates, so that all takes under sixteen hours of one core.
"""

from collections.abc import Sequence
from typing import NamedTuple

from experiments.runs import Training, training

PRESETS = ("laptop", "small", "paper")
# What a preset leaves out. Figure 1 and batch-norm are as small in `laptop`; nobody has chosen the rates that
# `tuned` needs at the paper's size.
LEFT_OUT = {"laptop": (), "small": ("fig1a", "fig1b", "fig1c", "batchnorm"), "paper": ("tuned",)}
ALPHAS = (-0.8, -0.6, -0.4, -0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8)
# Without memory and with momentum: non-adaptive; then the adaptive ones.
OPTIMIZERS = ("sgd", "sgd_amom", "rmsprop", "adagrad", "adam")
NAMES = {
    "sgd": "SGD",
    "sgd_amom": "SGD_AMom",
    "rmsprop": "RMSProp",
    "adagrad": "Adagrad",
    "adam": "Adam",
}


class Part(NamedTuple):
    """A task's part in an experiment.

    Attributes:
      task: a key of `train.TASKS`.
      seeds: of all runs.
      more_seeds: of the runs with alpha = 0 in addition.
      epochs: if they are not the task's.
      alphas: those of Figure 2.
    """

    task: str
    seeds: tuple[int, ...] = (0,)
    more_seeds: tuple[int, ...] = ()
    epochs: int | None = None
    alphas: tuple[float, ...] = ALPHAS

    def runs(self, *, alpha: float = 0.0, **flags: object) -> list[Training]:
        """One run a seed."""
        seeds = (*self.seeds, *self.more_seeds) if alpha == 0 else self.seeds
        return [
            training(task=self.task, epochs=self.epochs, seed=seed, alpha=alpha, **flags) for seed in seeds
        ]


_FIVE = (0, 1, 2, 3, 4)
_FEW = (-0.4, -0.2, 0.0, 0.2, 0.4)
SECTION5: dict[str, Sequence[Part]] = {
    "laptop": (
        Part("mnist5k-mlp", (0, 1, 2)),
        Part("mnist5k-vgg", (0,), (1, 2), epochs=20),
    ),
    "small": (
        Part("cifar16-vgg10", _FIVE, alphas=(-0.6, -0.4, -0.2, -0.1, 0.0, 0.1, 0.2, 0.4, 0.6)),
        Part("cifar16-resnet20", _FIVE, alphas=_FEW),
        Part("cifar16-vgg25", _FIVE, alphas=_FEW),
    ),
    "paper": (Part("c10-cnn1"), Part("c100-resnet"), Part("tiny-cnn")),
}
SECTION6: dict[str, Sequence[Part]] = {
    "laptop": (Part("mnist5k-mlp", (0, 1, 2)), Part("mnist5k-vgg")),
    "small": (Part("cifar16-wilson", _FIVE),),
    "paper": (Part("c10-cnn2"),),
}
