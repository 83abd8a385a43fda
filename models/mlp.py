"""The multi-layer perceptron of Section 3: ten equal hidden layers."""

from itertools import pairwise

import jax
from flax import nnx

from models.batch_norm import make_batch_norm


class MLP(nnx.Module):
    """`depth` hidden layers (dense, optional batch-norm, ReLU) and a dense layer to the classes.

    As in all of the paper's networks, there are no biases, and batch-norm has neither scale nor shift.
    Kernels are initialised Glorot uniform. The paper's MLP has no batch-norm; its position is our choice.

    Args:
      rngs: source of the initial weights.
      features: number of entries of a (flattened) image; by default MNIST's 28 x 28.
      width: units of each hidden layer.
      depth: number of hidden layers; the network has `depth + 1` layers.
      classes: number of classes.
      batch_norm: whether to use batch-norm between each hidden layer and its ReLU.
      bias: whether dense layers have biases.
      norm_scale_shift: whether batch-norm has a scale and a shift.
      norm_momentum: factor by which batch-norm's running statistics decay per step.
    """

    def __init__(
        self,
        rngs: nnx.Rngs,
        *,
        features: int = 784,
        width: int = 784,
        depth: int = 10,
        classes: int = 10,
        batch_norm: bool = False,
        bias: bool = False,
        norm_scale_shift: bool = False,
        norm_momentum: float = 0.99,
    ) -> None:
        widths = [features, *[width] * depth, classes]
        self.layers = nnx.List(
            nnx.Linear(
                fan_in, fan_out, use_bias=bias, kernel_init=nnx.initializers.glorot_uniform(), rngs=rngs
            )
            for fan_in, fan_out in pairwise(widths)
        )
        self.norms = nnx.List(
            make_batch_norm(width, momentum=norm_momentum, scale_shift=norm_scale_shift, rngs=rngs)
            for _ in range(depth if batch_norm else 0)
        )

    def __call__(self, images: jax.Array) -> jax.Array:
        x = images.reshape(images.shape[0], -1)
        *hidden, last = self.layers
        for i, layer in enumerate(hidden):
            x = layer(x)
            if self.norms:
                x = self.norms[i](x)
            x = nnx.relu(x)
        return last(x)
