"""bfloat16 is as good as float32 in training if it is used as docs/precision.md advises, and only then."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pages
import pytest

from data import mnist5k, standardise
from layca_optax import layca

SEEDS, STEPS, BATCH, WIDTH = 8, 200, 64, 32


def training_losses(loss, images, labels, params_dtype, dtype):
    """Returns the final loss on all images, per seed; seeds differ in initial weights and batches."""
    optimizer = optax.chain(optax.scale_by_adam(), layca(optax.cosine_decay_schedule(3**-5, STEPS)))

    def train(key):
        def step(carry, key):
            params, state = carry
            batch = jax.random.randint(key, BATCH, 0, len(images))
            gradient = jax.grad(loss)(params, images[batch], labels[batch], dtype)
            updates, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), None

        first, last, batches = jax.random.split(key, 3)
        init = jax.nn.initializers.glorot_uniform()
        params = {
            "first": init(first, (images.shape[1], WIDTH)).astype(params_dtype),
            "last": init(last, (WIDTH, 10)).astype(params_dtype),
        }
        keys = jax.random.split(batches, STEPS)
        (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), keys)
        return loss(params, images, labels, dtype)

    return np.asarray(
        jax.jit(lambda keys: jax.lax.map(train, keys))(jax.random.split(jax.random.key(0), SEEDS))
    )


def difference(losses, reference):
    """Returns the difference of means over seeds, and twice its standard error."""
    error = np.sqrt((losses.var(ddof=1) + reference.var(ddof=1)) / SEEDS)
    return losses.mean() - reference.mean(), 2 * error


@pytest.mark.slow
def test_float32_parameters_and_bfloat16_products_reach_the_loss_of_float32():
    loss = pages.run(pages.ROOT / "docs" / "precision.md")["loss"]
    data = mnist5k.load(512, seed=0)
    images = standardise(jnp.asarray(data.train_images[:, ::2, ::2].reshape(512, -1)), data.scale)
    losses = partial(training_losses, loss, images, jnp.asarray(data.train_labels))

    reference = losses(jnp.float32, jnp.float32)
    mean, noise = difference(losses(jnp.float32, jnp.bfloat16), reference)
    assert noise < 0.1 * reference.mean()
    assert abs(mean) < noise
    # The same measure finds what the page warns of.
    mean, noise = difference(losses(jnp.bfloat16, jnp.bfloat16), reference)
    assert mean > noise
