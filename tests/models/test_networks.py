"""Tests sizes, initial weights, depths, rotation and switches of all convolutional networks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

import train
from layca_optax import layca, layer_depths
from models import pure
from models.resnet import ResNet
from models.vgg import VGG, WilsonVGG
from training.step import train_step

TINY_IMAGENET = partial(VGG, filters=(32, 64, 128, 256, 512), convs=(2,) * 5, classes=200)
FULL_SIZE = [
    (VGG, 32, 10, 4_307_296),
    (TINY_IMAGENET, 64, 200, 4_812_640),
    (ResNet, 32, 100, 470_192),
    (WilsonVGG, 32, 10, 14_977_728),
]
SMALL = {
    "vgg": partial(VGG, filters=(64,), convs=(2,), classes=64),
    "resnet": partial(ResNet, filters=(32, 64), blocks=1),
    "wilson": partial(WilsonVGG, filters=(64,), convs=(2,), hidden=64, classes=64),
}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow if name == "wilson" else ()) for name in SMALL],
)
def small(request):
    model = pure(SMALL[request.param])
    return request.param, model, *model.init(jax.random.key(0))


def paths_by_depth(build, size):
    """Returns the paths of all kernels in the order of the forward pass."""
    model = pure(build)
    depths = layer_depths(
        lambda params, state, images: model.apply(params, state, images, train=True)[0],
        *jax.eval_shape(model.init, jax.random.key(0)),
        jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32),
    )
    leaves = jax.tree_util.tree_leaves_with_path(depths)
    assert sorted(depth for _, depth in leaves) == list(range(len(leaves)))
    by_depth = sorted(leaves, key=lambda leaf: leaf[1])
    return [
        jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/kernel") for path, _ in by_depth
    ]


@pytest.mark.parametrize(("build", "size", "classes", "parameters"), FULL_SIZE)
def test_full_size_networks_have_the_papers_number_of_parameters(build, size, classes, parameters):
    model = pure(build)
    params, state = jax.eval_shape(model.init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == parameters
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    for mode in (True, False):
        logits, new = jax.eval_shape(partial(model.apply, train=mode), params, state, images)
        assert logits.shape == (2, classes)
        assert new == state


def test_layers_are_in_the_order_of_the_forward_pass():
    convs = lambda n: [f"convs/{i}" for i in range(n)]
    assert paths_by_depth(VGG, 32) == [*convs(24), "head"]
    assert paths_by_depth(TINY_IMAGENET, 64) == [*convs(10), "head"]
    assert paths_by_depth(WilsonVGG, 32) == [*convs(13), "hidden", "head"]
    blocks = [
        f"blocks/{i}/{layer}"
        for i in range(15)
        for layer in ("convs/0", "convs/1", "projection")
        if layer != "projection" or i in (5, 10)
    ]
    assert paths_by_depth(ResNet, 32) == ["stem", *blocks, "head"]


def test_kernels_start_with_the_variance_of_he(small):
    name, _, params, _ = small
    for kernel in map(np.asarray, jax.tree.leaves(params)):
        std = np.sqrt(2 / np.prod(kernel.shape[:-1]))
        # Six standard errors of the estimate; those of the uniform distribution are smaller.
        assert kernel.std() == pytest.approx(std, rel=6 / np.sqrt(2 * kernel.size))
        assert (np.abs(kernel).max() <= np.sqrt(3) * std) == (name == "vgg")


def test_a_step_turns_every_kernel_by_the_same_angle(small):
    _, model, params, model_state = small
    optimizer = layca(3**-3)
    state = train.TrainState(jnp.int32(0), params, model_state, optimizer.init(params))
    images = jax.random.normal(jax.random.key(1), (8, 2, 2, 3))
    new, _ = jax.jit(partial(train_step, model, optimizer))(state, images, jnp.arange(8))
    for before, after in zip(*map(jax.tree.leaves, (params, new.params)), strict=True):
        assert oracle.angle(before, after) == pytest.approx(np.arctan(3**-3), rel=1e-4)
        assert oracle.norm(after) == pytest.approx(oracle.norm(before), rel=1e-5)


@pytest.mark.parametrize("build", SMALL.values(), ids=SMALL)
def test_biases_and_norm_parameters_can_be_switched_on(build):
    def names(**switches):
        params, _ = jax.eval_shape(pure(partial(build, **switches)).init, jax.random.key(0))
        return [str(path[-1].key) for path, _ in jax.tree_util.tree_leaves_with_path(params)]

    plain = names()
    assert set(plain) == {"kernel"}
    assert sorted(names(bias=True)) == sorted(plain + ["bias"] * len(plain))
    with_both = names(bias=True, norm_scale_shift=True)
    norms = with_both.count("scale")
    assert norms > 0
    assert sorted(with_both) == sorted(plain + ["bias"] * (len(plain) + norms) + ["scale"] * norms)
