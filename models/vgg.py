"""Convolutional networks without shortcuts: the VGG style of Section 5, and the VGG of Section 6.2."""

from collections.abc import Sequence
from functools import partial
from itertools import islice, pairwise

import jax
from flax import nnx

from models.batch_norm import make_batch_norm


class VGG(nnx.Module):
    """Stages of 3 x 3 convolutions with 2 x 2 max-pooling between them, a mean over space and a dense layer.

    Each convolution is followed by ReLU and then batch-norm. As in all of the paper's networks, there are no
    biases, and batch-norm has neither scale nor shift. Kernels are initialised He uniform. The defaults give
    the 25-layer network for CIFAR-10 of Section 5.

    Args:
      rngs: source of the initial weights.
      channels: of the images, which are `(n, height, width, channels)`.
      filters: number of filters per convolution, one number per stage.
      convs: number of convolutions per stage; the network has `sum(convs) + 1` layers.
      classes: number of classes.
      bias: whether convolutions and the dense layer have biases.
      norm_scale_shift: whether batch-norm has a scale and a shift.
      norm_momentum: factor by which batch-norm's running statistics decay per step.

    References:
      Carbonnelle and De Vleeschouwer, 2018, Section 5.
    """

    def __init__(
        self,
        rngs: nnx.Rngs,
        *,
        channels: int = 3,
        filters: Sequence[int] = (32, 64, 128, 256),
        convs: Sequence[int] = (6, 6, 6, 6),
        classes: int = 10,
        bias: bool = False,
        norm_scale_shift: bool = False,
        norm_momentum: float = 0.99,
    ) -> None:
        kernel_init = nnx.initializers.he_uniform()
        widths = [channels, *_conv_widths(filters, convs)]
        self.stages = tuple(convs)
        self.convs = nnx.List(
            nnx.Conv(fan_in, fan_out, (3, 3), use_bias=bias, kernel_init=kernel_init, rngs=rngs)
            for fan_in, fan_out in pairwise(widths)
        )
        self.norms = nnx.List(
            make_batch_norm(width, momentum=norm_momentum, scale_shift=norm_scale_shift, rngs=rngs)
            for width in widths[1:]
        )
        self.head = nnx.Linear(widths[-1], classes, use_bias=bias, kernel_init=kernel_init, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        x = images
        layers = zip(self.convs, self.norms, strict=True)
        for stage, size in enumerate(self.stages):
            if stage > 0:
                x = nnx.max_pool(x, (2, 2), (2, 2))
            for conv, norm in islice(layers, size):
                x = norm(nnx.relu(conv(x)))
        return self.head(x.mean((1, 2)))


class WilsonVGG(nnx.Module):
    """The VGG with dropout of Section 6.2, from Wilson et al.

    Each 3 x 3 convolution and the hidden dense layer are followed by batch-norm and then ReLU. There is
    dropout between the convolutions of a stage (rate 0.3 in the first stage, 0.4 in the others) and before
    both dense layers (rate 0.5), and 2 x 2 max-pooling after each stage. Kernels are initialised He normal.
    Dropout takes its keys and counters from the module's state, so each call drops other units.

    Args:
      rngs: source of the initial weights and of dropout.
      channels: of the images, which are `(n, size, size, channels)` with `size = 2 ** len(filters)`, so that
        pooling reduces them to one pixel.
      filters: number of filters per convolution, one number per stage.
      convs: number of convolutions per stage; the network has `sum(convs) + 2` layers.
      hidden: units of the hidden dense layer.
      classes: number of classes.
      bias: whether convolutions and dense layers have biases.
      norm_scale_shift: whether batch-norm has a scale and a shift.
      norm_momentum: factor by which batch-norm's running statistics decay per step.

    References:
      Carbonnelle and De Vleeschouwer, 2018, Section 6.2.
      Wilson et al., The Marginal Value of Adaptive Gradient Methods in Machine Learning, 2017.
    """

    def __init__(
        self,
        rngs: nnx.Rngs,
        *,
        channels: int = 3,
        filters: Sequence[int] = (64, 128, 256, 512, 512),
        convs: Sequence[int] = (2, 2, 3, 3, 3),
        hidden: int = 512,
        classes: int = 10,
        bias: bool = False,
        norm_scale_shift: bool = False,
        norm_momentum: float = 0.99,
    ) -> None:
        norm = partial(make_batch_norm, momentum=norm_momentum, scale_shift=norm_scale_shift, rngs=rngs)
        kernel_init = nnx.initializers.he_normal()
        dense = partial(nnx.Linear, use_bias=bias, kernel_init=kernel_init, rngs=rngs)
        widths = [channels, *_conv_widths(filters, convs)]
        self.stages = tuple(convs)
        self.convs = nnx.List(
            nnx.Conv(fan_in, fan_out, (3, 3), use_bias=bias, kernel_init=kernel_init, rngs=rngs)
            for fan_in, fan_out in pairwise(widths)
        )
        self.norms = nnx.List(norm(width) for width in widths[1:])
        self.dropouts = nnx.List(
            nnx.Dropout(0.3 if stage == 0 else 0.4, rngs=rngs) for stage in range(len(convs))
        )
        self.hidden = dense(widths[-1], hidden)
        self.hidden_norm = norm(hidden)
        self.dense_dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = dense(hidden, classes)

    def __call__(self, images: jax.Array) -> jax.Array:
        size = 2 ** len(self.stages)
        if images.shape[1:3] != (size, size):
            raise ValueError(f"images must be {size} x {size} pixels, not of shape {images.shape}")
        x = images
        layers = zip(self.convs, self.norms, strict=True)
        for stage_size, dropout in zip(self.stages, self.dropouts, strict=True):
            for i, (conv, norm) in enumerate(islice(layers, stage_size)):
                if i > 0:
                    x = dropout(x)
                x = nnx.relu(norm(conv(x)))
            x = nnx.max_pool(x, (2, 2), (2, 2))
        x = self.dense_dropout(x.reshape(x.shape[0], -1))
        x = nnx.relu(self.hidden_norm(self.hidden(x)))
        return self.head(self.dense_dropout(x))


def _conv_widths(filters: Sequence[int], convs: Sequence[int]) -> list[int]:
    if len(filters) != len(convs):
        raise ValueError(f"filters {filters} and convs {convs} must have one number per stage")
    return [width for width, count in zip(filters, convs, strict=True) for _ in range(count)]
