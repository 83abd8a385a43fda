import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from layca_optax import layer_rotation


@pytest.mark.parametrize("theta", [3e-4, 1.4e-3, 0.1, 1.0, 2.0, 3.1])
@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e25])
def test_cosine_distance_of_any_angle_and_size(theta, scale):
    rng = np.random.default_rng(0)
    w, t = rng.normal(size=(2, 30, 40))
    new = oracle.turned_by(w, t, theta)
    got = jax.jit(layer_rotation)({"w": jnp.float32(new * scale)}, {"w": jnp.float32(w)})["w"]
    assert float(got) == pytest.approx(1 - np.cos(theta), rel=1e-3)


def test_one_value_per_rotating_leaf_by_path():
    params = {"layers": [{"kernel": jnp.eye(2), "bias": jnp.ones(2)}], "n": jnp.array([[1]])}
    assert layer_rotation(params, params).keys() == {"layers/0/kernel"}
    assert float(layer_rotation(params, params)["layers/0/kernel"]) == 0


def test_one_value_per_vector_of_a_leaf():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 3))
    expected = [oracle.cosine_distance(a[:, i], b[:, i]) for i in range(3)]
    got = layer_rotation(jnp.float32(a), jnp.float32(b), rotate="neuron")["."]
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_a_zero_vector_has_no_angle():
    assert np.isnan(layer_rotation(jnp.zeros((2, 2)), jnp.eye(2))["."])


def test_other_leaves_are_refused_by_name():
    with pytest.raises(ValueError, match="'b'"):
        layer_rotation({"a": jnp.eye(2)}, {"a": jnp.eye(2), "b": jnp.eye(2)})
