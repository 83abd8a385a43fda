"""Layer rotation as flat numbers, as loggers take them."""

from typing import Any

import jax
import numpy as np

from layca_optax._track import rotation_report


def rotation_scalars(opt_state: Any, prefix: str = "rotation") -> dict[str, float | jax.Array]:
    """Returns what `track_rotation` measured as one number per name, ready for a logger.

    `wandb.log(rotation_scalars(state), step=step)`, `mlflow.log_metrics(rotation_scalars(state), step)`,
    `json.dumps(rotation_scalars(state))`; TensorBoard's writers take one name and one number per call.

    Args:
      opt_state: any tree that holds the state of `track_rotation`, as for `rotation_report`.
      prefix: what every name starts with, before a slash.

    Returns:
      A dictionary from `prefix/path/measure` to a float. The measures are those of `rotation_report`:
      `from_init` (cosine distance), `last_step` (radians) and `norm` (relative to the initial one). A leaf of
      several vectors has one name per vector, with the vector's index behind the path:
      `rotation/blocks/kernel/0/from_init`. With `rotate="neuron"` these are as many as the network has
      neurons. Inside `jit` the numbers are JAX scalars, so that a train step can return them.

    Raises:
      ValueError: as `rotation_report`.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from layca_optax import rotation_scalars, track_rotation
      >>> optimizer = optax.chain(optax.adam(1e-3), track_rotation())
      >>> rotation_scalars(optimizer.init({"kernel": jnp.eye(2), "bias": jnp.zeros(2)}))
      {'rotation/kernel/from_init': 0.0, 'rotation/kernel/last_step': 0.0, 'rotation/kernel/norm': 1.0}
    """
    scalars: dict[str, float | jax.Array] = {}
    for path, measures in rotation_report(opt_state).items():
        for index in np.ndindex(np.shape(measures["norm"])):
            name = "/".join([prefix, path, *map(str, index)])
            for measure, values in measures.items():
                value = values if isinstance(values, float) else values[index]
                scalars[f"{name}/{measure}"] = value if isinstance(value, jax.Array) else float(value)
    return scalars
