"""Residual networks for small images, as in He et al.'s first paper: ResNet-32 of Section 5."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
from flax import nnx

from models.batch_norm import make_batch_norm


class ResNet(nnx.Module):
    """A 3 x 3 convolution, stages of residual blocks, a mean over space and a dense layer.

    Every convolution is followed by batch-norm and ReLU; the second ReLU of a block comes after the sum.
    Every stage but the first halves height and width in its first block. As in all of the paper's networks,
    there are no biases, and batch-norm has neither scale nor shift. Kernels are initialised He normal. The
    defaults give ResNet-32.

    Args:
      rngs: source of the initial weights.
      channels: of the images, which are `(n, height, width, channels)`.
      filters: number of filters per convolution, one number per stage.
      blocks: number of blocks per stage; three stages make a ResNet-(6 blocks + 2), not counting projections.
      classes: number of classes.
      bias: whether convolutions, projections and the dense layer have biases.
      norm_scale_shift: whether batch-norm has a scale and a shift.
      norm_momentum: factor by which batch-norm's running statistics decay per step.

    References:
      Carbonnelle and De Vleeschouwer, 2018, Section 5.
      He et al., Deep Residual Learning for Image Recognition, 2016, Section 4.2.
    """

    def __init__(
        self,
        rngs: nnx.Rngs,
        *,
        channels: int = 3,
        filters: Sequence[int] = (16, 32, 64),
        blocks: int = 5,
        classes: int = 100,
        bias: bool = False,
        norm_scale_shift: bool = False,
        norm_momentum: float = 0.99,
    ) -> None:
        kernel_init = nnx.initializers.he_normal()
        conv = partial(nnx.Conv, use_bias=bias, kernel_init=kernel_init, rngs=rngs)
        norm = partial(make_batch_norm, momentum=norm_momentum, scale_shift=norm_scale_shift, rngs=rngs)
        self.stem = conv(channels, filters[0], (3, 3))
        self.stem_norm = norm(filters[0])
        self.blocks = nnx.List()
        fan_in = filters[0]
        for stage, fan_out in enumerate(filters):
            for i in range(blocks):
                stride = 2 if stage > 0 and i == 0 else 1
                self.blocks.append(Block(conv, norm, fan_in, fan_out, stride))
                fan_in = fan_out
        self.head = nnx.Linear(fan_in, classes, use_bias=bias, kernel_init=kernel_init, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        x = nnx.relu(self.stem_norm(self.stem(images)))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((1, 2)))


class Block(nnx.Module):
    """Two convolutions and a shortcut, which is a 1 x 1 convolution without batch-norm if shapes change.

    Args:
      conv: makes a convolution, given the numbers of input and output features, kernel size and strides.
      norm: makes a batch-norm, given the number of features.
      fan_in: number of input features.
      fan_out: number of output features.
      stride: factor by which the block divides height and width.
    """

    def __init__(
        self,
        conv: Callable[..., nnx.Conv],
        norm: Callable[[int], nnx.BatchNorm],
        fan_in: int,
        fan_out: int,
        stride: int,
    ) -> None:
        self.convs = nnx.List([conv(fan_in, fan_out, (3, 3), stride), conv(fan_out, fan_out, (3, 3))])
        self.norms = nnx.List([norm(fan_out), norm(fan_out)])
        changes = stride > 1 or fan_in != fan_out
        self.projection = conv(fan_in, fan_out, (1, 1), stride) if changes else None

    def __call__(self, x: jax.Array) -> jax.Array:
        residual = nnx.relu(self.norms[0](self.convs[0](x)))
        residual = self.norms[1](self.convs[1](residual))
        # The projection comes after the convolutions so that `layer_depths` counts it last in the block.
        shortcut = x if self.projection is None else self.projection(x)
        return nnx.relu(residual + shortcut)
