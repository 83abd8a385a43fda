"""Defines the tasks, seeds and alphas that each preset uses in Sections 5 and 6 of the paper.

`laptop` has narrow networks on MNIST-5k, `small` on CIFAR-10 at 16 x 16 pixels. Both have five seeds for
every verdict, and fewer alphas than the paper for tasks whose runs take minutes.
"""

from collections.abc import Sequence
from typing import NamedTuple

from experiments.runs import Training, training

PRESETS = ("laptop", "small", "paper")
ALPHAS = (-0.8, -0.6, -0.4, -0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8)
# Non-adaptive optimizers first, then adaptive ones.
OPTIMIZERS = ("sgd", "sgd_amom", "rmsprop", "adagrad", "adam")
NAMES = {
    "sgd": "SGD",
    "sgd_amom": "SGD_AMom",
    "rmsprop": "RMSProp",
    "adagrad": "Adagrad",
    "adam": "Adam",
}


class Setup(NamedTuple):
    """A task with the seeds and alphas of its runs.

    Attributes:
      task: a key of `train.TASKS`.
      seeds: one run each.
      alphas: those of Figure 2.
    """

    task: str
    seeds: tuple[int, ...] = (0,)
    alphas: tuple[float, ...] = ALPHAS

    def runs(self, *, alpha: float = 0.0, **flags: object) -> list[Training]:
        """Returns one run per seed."""
        return [training(task=self.task, seed=seed, alpha=alpha, **flags) for seed in self.seeds]


_FIVE = (0, 1, 2, 3, 4)
_FEW = (-0.4, -0.2, 0.0, 0.2, 0.4)
SECTION5: dict[str, Sequence[Setup]] = {
    "laptop": (Setup("mnist5k-mlp", _FIVE), Setup("mnist5k-vgg", _FIVE, alphas=_FEW)),
    "small": (
        Setup("cifar16-vgg10", _FIVE, alphas=(-0.6, -0.4, -0.2, -0.1, 0.0, 0.1, 0.2, 0.4, 0.6)),
        # Its training accuracy stays under 98 %, so Figure 2 would not show other alphas.
        Setup("cifar16-vgg25", _FIVE, alphas=(0.0,)),
        Setup("cifar16-resnet20", _FIVE, alphas=_FEW),
    ),
    "paper": (Setup("c10-cnn1"), Setup("c100-resnet"), Setup("tiny-cnn")),
}
SECTION6: dict[str, Sequence[Setup]] = {
    "laptop": (Setup("mnist5k-mlp", _FIVE), Setup("mnist5k-vgg", _FIVE)),
    "small": (Setup("cifar16-wilson", _FIVE),),
    "paper": (Setup("c10-cnn2"),),
}
