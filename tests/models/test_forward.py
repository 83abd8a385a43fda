"""Tests the order of operations of the convolutional networks, against float64 NumPy."""

from functools import partial
from itertools import count

import jax
import jax.numpy as jnp
import network_oracle as no
import numpy as np
import pytest
from flax import nnx

from models import pure
from models.resnet import ResNet
from models.vgg import VGG, WilsonVGG


def vgg(params, norm, drop, x):
    convs = iter(range(3))
    for stage, size in enumerate((1, 2)):
        if stage == 1:
            x = no.max_pool(x)
        for _ in range(size):
            i = next(convs)
            x = norm("norms", i)(no.relu(no.convolution(x, params["convs"][i]["kernel"])))
    return x.mean((1, 2)) @ params["head"]["kernel"]


def resnet(params, norm, drop, x):
    x = no.relu(norm("stem_norm")(no.convolution(x, params["stem"]["kernel"])))
    for i, stride in enumerate((1, 2)):
        block = params["blocks"][i]
        y = no.convolution(x, block["convs"][0]["kernel"], stride)
        y = no.relu(norm("blocks", i, "norms", 0)(y))
        y = norm("blocks", i, "norms", 1)(no.convolution(y, block["convs"][1]["kernel"]))
        x = no.relu(y + (x if stride == 1 else no.convolution(x, block["projection"]["kernel"], stride)))
    return x.mean((1, 2)) @ params["head"]["kernel"]


def wilson(params, norm, drop, x):
    i = count()

    def layer(x):
        n = next(i)
        return no.relu(norm("norms", n)(no.convolution(x, params["convs"][n]["kernel"])))

    x = no.max_pool(layer(drop(layer(x), 0.3)))
    x = no.max_pool(layer(drop(layer(x), 0.4)))
    x = drop(x.reshape(len(x), -1), 0.5)
    x = no.relu(norm("hidden_norm")(x @ params["hidden"]["kernel"]))
    return drop(x, 0.5) @ params["head"]["kernel"]


NETWORKS = [
    (partial(VGG, filters=(3, 4), convs=(1, 2)), (5, 8, 6, 3), vgg),
    (partial(ResNet, filters=(3, 4), blocks=1, classes=7), (5, 8, 7, 3), resnet),
    (partial(WilsonVGG, filters=(3, 4), convs=(2, 2), hidden=6), (5, 4, 4, 3), wilson),
]


@pytest.mark.parametrize(
    ("build", "shape", "forward"),
    [NETWORKS[0], *(pytest.param(*network, marks=pytest.mark.slow) for network in NETWORKS[1:])],
)
def test_networks_compute_the_papers_formula(build, shape, forward, monkeypatch):
    def dropout(self, x):
        dropped = jnp.arange(x.size).reshape(x.shape) % 10 < round(10 * self.rate)
        return x if self.deterministic else jnp.where(dropped, 0, x / (1 - self.rate))

    monkeypatch.setattr(nnx.Dropout, "__call__", dropout)
    model = pure(partial(build, norm_momentum=0.5))
    params, state = model.init(jax.random.key(0))
    images = 2 * jax.random.normal(jax.random.key(1), shape) + 1
    float64 = partial(jax.tree.map, lambda leaf: np.asarray(leaf, np.float64))
    kernels, x = float64((params, images))
    apply = jax.jit(model.apply, static_argnames="train")

    logits, state = apply(params, state, images, train=True)
    expected = forward(kernels, lambda *path: no.batch_norm, no.dropout, x)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)

    def running(*path):
        statistics = state
        for key in path:
            statistics = statistics[key]
        return partial(no.batch_norm, running=float64(statistics))

    logits, same = apply(params, state, images, train=False)
    expected = forward(kernels, running, lambda x, rate: x, x)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    assert jax.tree.all(jax.tree.map(lambda a, b: jnp.all(a == b), state, same))


@pytest.mark.slow
def test_running_statistics_move_towards_those_of_the_batch():
    model = pure(partial(VGG, filters=(3,), convs=(1,), norm_momentum=0.9))
    params, state = model.init(jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (5, 4, 4, 3))
    _, new = model.apply(params, state, images, train=True)
    x, kernel = (np.asarray(leaf, np.float64) for leaf in (images, params["convs"][0]["kernel"]))
    x = no.relu(no.convolution(x, kernel))
    np.testing.assert_allclose(new["norms"][0]["mean"], 0.1 * x.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(new["norms"][0]["var"], 0.9 + 0.1 * x.var((0, 1, 2)), rtol=1e-4)


def test_each_stage_needs_a_width_and_a_number_of_convolutions():
    with pytest.raises(ValueError, match="one number per stage"):
        pure(partial(VGG, filters=(3, 4), convs=(1,)))


def test_images_that_do_not_fit_are_refused():
    model = pure(partial(WilsonVGG, filters=(2, 2), convs=(1, 1), hidden=4))
    with pytest.raises(ValueError, match="4 x 4 pixels, not of shape"):
        jax.eval_shape(
            lambda: model.apply(*model.init(jax.random.key(0)), jnp.ones((1, 8, 8, 3)), train=False)
        )
