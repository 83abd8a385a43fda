"""The paper's non-adaptive equivalent of Adam."""

import jax
import optax


def sgd_amom(
    learning_rate: optax.ScalarOrSchedule, momentum: float | jax.Array = 0.9
) -> optax.GradientTransformation:
    r"""Makes SGD with Adam's momentum, but without its bias correction.

    .. math::
      v_t = m v_{t-1} + (1 - m) g_t, \qquad w_t = w_{t-1} - \rho v_t

    This is a complete optimizer. To put Layca on it, use its direction alone:
    `optax.chain(optax.ema(momentum, debias=False), layca(learning_rate))`.

    Args:
      learning_rate: :math:`\rho`, a number or a schedule.
      momentum: :math:`m`, in [0, 1); a number or a (traced) scalar.

    Returns:
      An `optax.GradientTransformation`.

    Raises:
      ValueError: `momentum` is concrete and outside [0, 1).

    Example:
      >>> import jax.numpy as jnp
      >>> from layca_optax import sgd_amom
      >>> optimizer = sgd_amom(1.0, momentum=0.9)
      >>> updates, state = optimizer.update(jnp.array(2.0), optimizer.init(jnp.array(0.0)))
      >>> print(f"{updates:.1f}")
      -0.2

    References:
      Carbonnelle and De Vleeschouwer, `On layer-level control of DNN training and its impact on
      generalization <https://arxiv.org/abs/1806.01603>`_, 2018, Section A.3.
    """
    if not isinstance(momentum, jax.core.Tracer) and not 0 <= momentum < 1:
        raise ValueError(f"momentum must be at least 0 and below 1, not {momentum}")
    return optax.chain(optax.ema(momentum, debias=False), optax.scale_by_learning_rate(learning_rate))
