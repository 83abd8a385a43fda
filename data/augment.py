"""Random flips and shifts of a batch of images, on the device."""

import jax
import jax.numpy as jnp


def augment(key: jax.Array, images: jax.Array, *, flip: bool, max_shift: int) -> jax.Array:
    """Each image mirrored or not, and moved by up to `max_shift` pixels; for use inside of `jit`.

    Every image draws for itself whether it is mirrored left to right, and how far it moves up or down and
    left or right. What moves in from outside is the image reflected at its outermost pixels, as by
    `np.pad(..., mode="reflect")`.

    Args:
      key: the same key gives the same images.
      images: `(n, height, width, channels)` of any dtype.
      flip: whether to mirror, one image in two.
      max_shift: largest shift in pixels; smaller than height and width. All shifts are equally likely.

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
    # One gather of pixels. On CPU, reversing and selecting takes several times as long, as does padding and
    # cutting.
    return images[jnp.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def _reflect(index: jax.Array, size: int) -> jax.Array:
    """Indices beyond an edge, by less than `size`, folded back at the outermost pixel."""
    return (size - 1) - jnp.abs((size - 1) - jnp.abs(index))
