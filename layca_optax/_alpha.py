"""Layer-wise learning rates that rise or fall exponentially with depth: the paper's alpha."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


def alpha_multipliers(alpha: jax.typing.ArrayLike, num_layers: int, exponent: float = 5.0) -> jax.Array:
    r"""Computes the factors that multiply each layer's learning rate, first layer first.

    .. math::
      m_l = \begin{cases}
        (1 - \alpha)^{e (L - 1 - l) / (L - 1)} & \alpha > 0 \\
        (1 + \alpha)^{e\, l / (L - 1)} & \alpha \le 0
      \end{cases}, \qquad e = 5

    A negative :math:`\alpha` slows down the last layers, a positive one the first layers; 0 treats all
    alike. The paper prints the second exponent without the 5, but its Figure 6 and experiments use it.

    Args:
      alpha: a scalar in [-1, 1]; may be traced.
      num_layers: :math:`L`, at least 1. A single layer gets 1.
      exponent: :math:`e`.

    Returns:
      A float array of shape `(num_layers,)`, with values in [0, 1].

    Raises:
      ValueError: `num_layers` is below 1, or `alpha` is concrete and outside [-1, 1].

    Example:
      >>> from layca_optax import alpha_multipliers
      >>> print(alpha_multipliers(0.5, 3))
      [0.03125    0.17677669 1.        ]
      >>> print(alpha_multipliers(-0.5, 3))
      [1.         0.17677669 0.03125   ]

    References:
      Carbonnelle and De Vleeschouwer, `On layer-level control of DNN training and its impact on
      generalization <https://arxiv.org/abs/1806.01603>`_, 2018, Equation (1) and Figure 6.
    """
    if num_layers < 1:
        raise ValueError(f"num_layers must be at least 1, not {num_layers}")
    if not isinstance(alpha, jax.core.Tracer) and not -1 <= np.asarray(alpha) <= 1:
        raise ValueError(f"alpha must be between -1 and 1, not {alpha}")
    alpha = jnp.asarray(alpha, jnp.result_type(float))
    layer = np.arange(num_layers)
    last = max(num_layers - 1, 1)
    rising = (1 - jnp.abs(alpha)) ** jnp.asarray(exponent * (num_layers - 1 - layer) / last, alpha.dtype)
    return jnp.where(alpha > 0, rising, rising[::-1])


def alpha_learning_rates(
    learning_rate: optax.ScalarOrSchedule, alpha: jax.typing.ArrayLike, depths: Any, exponent: float = 5.0
) -> Any:
    """Computes one learning rate per leaf: `learning_rate` times `alpha_multipliers` at the leaf's depth.

    Args:
      learning_rate: a (traced) scalar or a schedule `count -> rate`.
      alpha: as in `alpha_multipliers`.
      depths: a tree of depths as `layer_depths` returns it: 0 for the first layer, the largest depth for
        the last, -1 for a leaf that does not rotate (it gets `learning_rate` itself). An array of depths
        gives an array of rates.
      exponent: as in `alpha_multipliers`.

    Returns:
      A tree like `depths`, for `layca`: rates if `learning_rate` is a number, schedules if it is a schedule.

    Example:
      >>> from layca_optax import alpha_learning_rates
      >>> rates = alpha_learning_rates(0.1, -0.5, {"first": 0, "bias": -1, "last": 1})
      >>> print({name: round(float(rate), 6) for name, rate in rates.items()})
      {'bias': 0.1, 'first': 0.1, 'last': 0.003125}

    References:
      Carbonnelle and De Vleeschouwer, 2018, Section 5.1.
    """
    num_layers = 1 + max((int(np.max(depth)) for depth in jax.tree.leaves(depths)), default=0)
    multipliers = alpha_multipliers(alpha, max(num_layers, 1), exponent)

    def rate(depth: Any) -> Any:
        depth = np.asarray(depth)
        factor = jnp.where(depth < 0, 1, multipliers[np.maximum(depth, 0)])
        if callable(learning_rate):
            return lambda count: factor * jnp.asarray(learning_rate(count)).astype(factor.dtype)
        return factor * jnp.asarray(learning_rate).astype(factor.dtype)

    return jax.tree.map(rate, depths)
