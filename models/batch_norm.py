"""Batch-norm as all networks use it."""

from flax import nnx


def make_batch_norm(features: int, *, momentum: float, scale_shift: bool, rngs: nnx.Rngs) -> nnx.BatchNorm:
    """Makes a batch-norm with Keras' epsilon; running statistics decay by the factor `momentum` per step."""
    return nnx.BatchNorm(
        features, momentum=momentum, epsilon=1e-3, use_scale=scale_shift, use_bias=scale_shift, rngs=rngs
    )
