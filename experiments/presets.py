"""Which tasks, seeds, epochs and alphas stand for the paper's in each preset.

`laptop` has narrow networks on MNIST-5k and takes under three hours on two cores, `small` has narrow networks
on CIFAR-10 at 16 x 16 pixels and takes under sixteen hours of one core. Both have five seeds of everything
that a verdict depends on, and fewer alphas than the paper where runs take minutes.
"""

from collections.abc import Sequence
from typing import NamedTuple

from experiments.runs import Training, training

PRESETS = ("laptop", "small", "paper")
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
      alphas: those of Figure 2.
    """

    task: str
    seeds: tuple[int, ...] = (0,)
    alphas: tuple[float, ...] = ALPHAS

    def runs(self, *, alpha: float = 0.0, **flags: object) -> list[Training]:
        """One run per seed."""
        return [training(task=self.task, seed=seed, alpha=alpha, **flags) for seed in self.seeds]


_FIVE = (0, 1, 2, 3, 4)
_FEW = (-0.4, -0.2, 0.0, 0.2, 0.4)
SECTION5: dict[str, Sequence[Part]] = {
    "laptop": (Part("mnist5k-mlp", _FIVE), Part("mnist5k-vgg", _FIVE, alphas=_FEW)),
    "small": (
        Part("cifar16-vgg10", _FIVE, alphas=(-0.6, -0.4, -0.2, -0.1, 0.0, 0.1, 0.2, 0.4, 0.6)),
        # Stays under 98 % training accuracy, so that other alphas would not be drawn.
        Part("cifar16-vgg25", _FIVE, alphas=(0.0,)),
        Part("cifar16-resnet20", _FIVE, alphas=_FEW),
    ),
    "paper": (Part("c10-cnn1"), Part("c100-resnet"), Part("tiny-cnn")),
}
SECTION6: dict[str, Sequence[Part]] = {
    "laptop": (Part("mnist5k-mlp", _FIVE), Part("mnist5k-vgg", _FIVE)),
    "small": (Part("cifar16-wilson", _FIVE),),
    "paper": (Part("c10-cnn2"),),
}
