"""Batch-norm as all networks have it."""

from flax import nnx


def make_batch_norm(features: int, *, momentum: float, scale_shift: bool, rngs: nnx.Rngs) -> nnx.BatchNorm:
    """Batch-norm with Keras' epsilon; a step keeps `momentum` of the running statistics."""
    return nnx.BatchNorm(
        features, momentum=momentum, epsilon=1e-3, use_scale=scale_shift, use_bias=scale_shift, rngs=rngs
    )
