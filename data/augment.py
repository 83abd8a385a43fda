"""Flips and shifts batches of images at random, on the device."""

import jax
import jax.numpy as jnp


def augment(key: jax.Array, images: jax.Array, *, flip: bool, max_shift: int) -> jax.Array:
    """Flips and shifts each image of a batch at random; for use inside `jit`.

    Each image is flipped left to right with probability 1/2, and shifted vertically and horizontally by up to
    `max_shift` pixels. The borders are filled by reflection, as by `np.pad(..., mode="reflect")`.

    Args:
      key: the same key gives the same result.
      images: `(n, height, width, channels)` of any dtype.
      flip: whether to flip.
      max_shift: largest shift in pixels, below height and width. All shifts are equally likely.

    Returns:
      Images of the same shape and dtype.

    Raises:
      ValueError: `max_shift` is negative or not smaller than the images.
    """
    count, height, width, _ = images.shape
    if not 0 <= max_shift < min(height, width):
        raise ValueError(f"max_shift must be between 0 and {min(height, width) - 1}, not {max_shift}")
    flip_key, shift_key = jax.random.split(key)
    down, right = jax.random.randint(shift_key, (2, count, 1), -max_shift, max_shift + 1)
    rows = _reflect(jnp.arange(height)[None] - down, height)
    columns = _reflect(jnp.arange(width)[None] - right, width)
    if flip:
        mirrored = jax.random.bernoulli(flip_key, shape=(count, 1))
        columns = jnp.where(mirrored, width - 1 - columns, columns)
    # One gather of pixels. On CPU, flipping and selecting takes several times as long, as does padding and
    # slicing.
    return images[jnp.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def _reflect(index: jax.Array, size: int) -> jax.Array:
    """Returns the indices, reflected at the outermost pixels where they are outside by less than `size`."""
    return (size - 1) - jnp.abs((size - 1) - jnp.abs(index))
