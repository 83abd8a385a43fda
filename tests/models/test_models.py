import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import pure
from models.mlp import MLP


def forward(params, images, state=None):
    """Computes the MLP in float64 NumPy: dense, batch-norm with running statistics, ReLU."""
    x = np.asarray(images, np.float64).reshape(len(images), -1)
    kernels = [np.asarray(params["layers"][i]["kernel"], np.float64) for i in range(len(params["layers"]))]
    for i, kernel in enumerate(kernels[:-1]):
        x = x @ kernel
        if state:
            mean, var = (np.asarray(state["norms"][i][k], np.float64) for k in ("mean", "var"))
            x = (x - mean) / np.sqrt(var + 1e-3)
        x = np.maximum(x, 0)
    return x @ kernels[-1]


@pytest.fixture(scope="module")
def images():
    return jax.random.normal(jax.random.key(1), (32, 28, 28, 1))


def test_the_papers_mlp(images):
    model = pure(MLP)
    params, state = model.init(jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(params)) == 6_154_400
    assert not jax.tree.leaves(state)
    logits, _ = model.apply(params, state, images, train=True)
    np.testing.assert_allclose(logits, forward(params, images), rtol=1e-4, atol=1e-4)
    limit = np.sqrt(6 / (784 + 784))
    assert 0.99 * limit < float(jnp.max(jnp.abs(params["layers"][3]["kernel"]))) <= limit


def test_batch_norm_has_statistics_and_no_parameters(images):
    model = pure(lambda rngs: MLP(rngs, width=16, batch_norm=True, norm_momentum=0.9))
    params, state = model.init(jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(params)) == 784 * 16 + 9 * 16**2 + 16 * 10
    logits, same = model.apply(params, state, images, train=False)
    np.testing.assert_allclose(logits, forward(params, images, state), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(same["norms"][0]["mean"], state["norms"][0]["mean"])
    _, new = model.apply(params, state, images, train=True)
    first = np.asarray(images).reshape(32, -1) @ np.asarray(params["layers"][0]["kernel"])
    np.testing.assert_allclose(new["norms"][0]["mean"], 0.1 * first.mean(0), rtol=1e-4, atol=1e-5)


def test_biases_and_norm_parameters_can_be_switched_on():
    model = pure(lambda rngs: MLP(rngs, width=16, depth=2, batch_norm=True, bias=True, norm_scale_shift=True))
    params, _ = model.init(jax.random.key(0))
    assert params["layers"][2].keys() == {"kernel", "bias"}
    assert params["norms"][1].keys() == {"scale", "bias"}


def test_the_seed_decides_the_weights():
    model = pure(lambda rngs: MLP(rngs, width=4, depth=1))
    a, b, c = (model.init(jax.random.key(seed))[0]["layers"][0]["kernel"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert np.any(a != c)
