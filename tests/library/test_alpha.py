import jax
import jax.numpy as jnp
import numpy as np
import pytest

from layca_optax import alpha_learning_rates, alpha_multipliers

ALPHAS = [-1, -0.8, -0.6, -0.4, -0.3, -0.2, -0.1, 0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1]


def equation_1(alpha, num_layers, exponent=5.0):
    """Computes Eq. (1) layer by layer, in Python floats."""
    if num_layers == 1:
        return [1.0]
    last = num_layers - 1
    if alpha > 0:
        return [(1 - alpha) ** (exponent * (last - layer) / last) for layer in range(num_layers)]
    return [(1 + alpha) ** (exponent * layer / last) for layer in range(num_layers)]


@pytest.mark.parametrize("num_layers", [1, 2, 11, 25])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_multipliers_are_equation_1(alpha, num_layers):
    expected = equation_1(alpha, num_layers)
    np.testing.assert_allclose(alpha_multipliers(alpha, num_layers), expected, rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(
        jax.jit(alpha_multipliers, static_argnums=1)(alpha, num_layers), expected, 1e-5, 1e-12
    )
    np.testing.assert_allclose(
        alpha_multipliers(alpha, num_layers, exponent=1.0), equation_1(alpha, num_layers, 1.0), rtol=1e-5
    )


def test_rates_follow_depth_and_leave_other_leaves_alone():
    depths = {"last": 2, "bias": -1, "first": 0, "stack": np.array([1, 2])}
    factors = equation_1(-0.4, 3)
    rates = alpha_learning_rates(0.5, -0.4, depths)
    assert rates["bias"] == 0.5
    np.testing.assert_allclose(rates["first"], 0.5 * factors[0], rtol=1e-6)
    np.testing.assert_allclose(rates["last"], 0.5 * factors[2], rtol=1e-6)
    np.testing.assert_allclose(rates["stack"], 0.5 * np.array(factors[1:]), rtol=1e-6)
    schedules = alpha_learning_rates(lambda count: 0.5 * count, -0.4, depths)
    np.testing.assert_allclose(schedules["last"](3), 1.5 * factors[2], rtol=1e-6)
    assert schedules["bias"](3) == 1.5
    np.testing.assert_allclose(
        jax.jit(lambda a: alpha_learning_rates(0.5, a, depths)["last"])(-0.4), 0.5 * factors[2], rtol=1e-6
    )


def test_trees_in_which_nothing_rotates_keep_their_rate():
    assert alpha_learning_rates(0.5, 0.3, {"a": -1}) == {"a": 0.5}
    assert alpha_learning_rates(0.5, 0.3, {}) == {}
    assert float(alpha_learning_rates(0.5, 0.3, 0)) == 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: alpha_multipliers(1.1, 3), "between -1 and 1"),
        (lambda: alpha_multipliers(float("nan"), 3), "between -1 and 1"),
        (lambda: alpha_multipliers(jnp.array(-2.0), 3), "between -1 and 1"),
        (lambda: alpha_multipliers(0.1, 0), "at least 1"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
