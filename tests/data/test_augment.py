"""Tests flips and reflected shifts against NumPy, pixel by pixel."""

import functools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.augment import augment


def shifted(image, down, right, mirrored, most):
    """Shifts an image by padding and cutting, as the augmentation is usually described."""
    if mirrored:
        image = image[:, ::-1]
    padded = np.pad(image, ((most, most), (most, most), (0, 0)), mode="reflect")
    height, width, _ = image.shape
    return padded[most - down : most - down + height, most - right : most - right + width]


def jitted(flip, max_shift):
    return jax.jit(functools.partial(augment, flip=flip, max_shift=max_shift))


@pytest.mark.parametrize(
    ("flip", "max_shift", "shape", "dtype"),
    [
        (True, 0, (3, 4, 3), np.uint8),
        (False, 2, (5, 4, 1), np.uint8),
        (True, 1, (4, 6, 3), np.float32),
        (True, 2, (3, 3, 2), np.uint8),  # the largest shift there is
        (False, 0, (4, 4, 1), np.uint8),
    ],
)
def test_all_possible_images_and_no_others_are_drawn_as_often_as_expected(flip, max_shift, shape, dtype):
    image = np.random.default_rng(0).permutation(np.prod(shape)).reshape(shape).astype(dtype)
    span = range(-max_shift, max_shift + 1)
    possible = Counter(
        shifted(image, down, right, mirrored, max_shift).tobytes()
        for down in span
        for right in span
        for mirrored in ([False, True] if flip else [False])
    )
    count = 400 * possible.total()
    made = np.asarray(
        jitted(flip, max_shift)(jax.random.key(0), jnp.broadcast_to(image, (count, *shape))), order="C"
    )
    assert made.shape == (count, *shape)
    assert made.dtype == dtype
    drawn = Counter(image.tobytes() for image in made)
    assert drawn.keys() == possible.keys()
    for pixels, ways in possible.items():
        # The count of an image has a standard deviation of about 20 per root of `ways`; allow five.
        assert abs(drawn[pixels] - 400 * ways) <= 100 * np.sqrt(ways) * (len(possible) > 1)


def test_images_keep_their_places_in_the_batch():
    images = np.arange(50, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8)
    np.testing.assert_array_equal(jitted(True, 3)(jax.random.key(1), images), images)


def test_the_result_depends_on_the_key_only():
    images = jax.random.bits(jax.random.key(5), (64, 8, 8, 3), jnp.uint8)
    function = jitted(True, 2)
    a, b, c = (function(jax.random.key(seed), images) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
    assert function._cache_size() == 1


@pytest.mark.parametrize("max_shift", [-1, 4])
def test_impossible_shifts_are_refused(max_shift):
    with pytest.raises(ValueError, match=f"max_shift must be between 0 and 3, not {max_shift}"):
        augment(jax.random.key(0), jnp.zeros((2, 4, 8, 1)), flip=False, max_shift=max_shift)
