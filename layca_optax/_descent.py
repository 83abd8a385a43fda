"""Tests whether an optimizer descends the loss or, with a wrong sign, climbs it."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from layca_optax._floats import at_least_float32
from layca_optax._paths import check_same_leaves, join, leaf_paths
from layca_optax._rules import is_inexact

# Gradient accumulation and warm-ups start with updates of zero.
_MOST_STEPS = 1000


def check_descent(
    optimizer: optax.GradientTransformation, params: Any, gradients: Any, **extra_args: Any
) -> None:
    """Raises an error that names the leaves whose updates point up the gradient.

    Call it once, before training, outside `jit`. It finds a wrong `flip_sign` in `layca`, which climbs the
    loss and otherwise looks like training, and an `others` that does not flip the sign.

    It compares the updates for `gradients` with those for `-gradients`, so parts that both share, such as
    weight decay, do not matter. While all updates are zero, as in a warm-up or under `optax.MultiSteps`, it
    takes further steps with the same gradients. It needs memory for three optimizer states. Your arrays are
    not changed.

    Args:
      optimizer: the whole optimizer, whose updates are added to the parameters.
      params: the parameters; those of a Flax NNX model are `nnx.state(model, nnx.Param)`, those of an Equinox
        model `eqx.filter(model, eqx.is_inexact_array)`.
      gradients: a tree like `params`: gradients of the loss, or any other values that are not all zero and
        not the parameters themselves; the sign of the updates does not depend on the loss.
      **extra_args: passed on to the optimizer's `update`.

    Raises:
      ValueError: the updates of a leaf point up its gradient or are not finite; 1,000 updates in a row are
        zero in every entry; the two trees have different leaves; the call is inside `jit`.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from layca_optax import check_descent, layca
      >>> params, gradients = {"kernel": jnp.eye(2)}, {"kernel": jnp.ones((2, 2))}
      >>> check_descent(optax.chain(optax.adamw(1e-3), layca(flip_sign=False)), params, gradients)
      >>> try:
      ...   check_descent(optax.chain(optax.adamw(1e-3), layca()), params, gradients)
      ... except ValueError as error:
      ...   print(str(error).partition(".")[0])
      the updates climb the loss at 'kernel'
    """
    check_same_leaves(params, gradients, "gradients")
    problem = uphill(optimizer, params, gradients, **extra_args)
    if problem:
        raise ValueError(problem)


def uphill(optimizer: optax.GradientTransformation, params: Any, gradients: Any, **extra_args: Any) -> str:
    """Says what is wrong with the direction of the updates; returns an empty string if nothing is."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((params, gradients))):
        raise ValueError("check_descent needs values: call it outside jit")
    names = [join(path) for path in leaf_paths(params)]
    for cosines in _cosines(optimizer, params, gradients, extra_args):
        if broken := [name for name, cosine in zip(names, cosines, strict=True) if np.isnan(cosine)]:
            return f"gradients or updates are not finite at {_listed(broken)}"
        # Rounding errors stay below this cosine.
        if climb := [name for name, cosine in zip(names, cosines, strict=True) if cosine > 1e-3]:
            return (
                f"the updates climb the loss at {_listed(climb)}. After a complete optimizer such as"
                " optax.adam, which has already flipped the gradient's sign, use layca(…, flip_sign=False);"
                " after optax.scale_by_adam, or alone, flip_sign=True. The output of `others` is added"
                " unchanged, so it must flip the sign: others=optax.scale_by_learning_rate(…). Nothing that"
                " scales updates may follow layca in the chain"
            )
        if any(cosines):
            return ""
    return (
        f"the updates are zero in every entry, in {_MOST_STEPS:,} steps with the same gradients. (Gradients"
        " that are parallel to the weights turn nothing.)"
    )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 5:,} more leaves" if len(names) > 5 else ""
    return ", ".join(map(repr, names[:5])) + more


def _cosines(
    optimizer: Any, params: Any, gradients: Any, extra_args: dict[str, Any]
) -> Iterator[list[float]]:
    """Yields, step by step, the cosine of each leaf's update with its gradient; 0 where either is zero."""
    update = optax.with_extra_args_support(optimizer).update
    down = jax.tree.map(lambda g: -g if is_inexact(g) else g, gradients)

    @jax.jit
    def step(states: Any) -> Any:
        (up_updates, up), (down_updates, down_state) = (
            update(g, state, params, **extra_args) for g, state in zip((gradients, down), states, strict=True)
        )
        leaves = zip(*map(jax.tree.leaves, (gradients, up_updates, down_updates)), strict=True)
        return [_cosine(g, u, v) if is_inexact(g) else jnp.zeros([]) for g, u, v in leaves], (up, down_state)

    # Under `jit`, `init` accepts vectors that start at zero.
    state = jax.jit(optimizer.init)(params)
    states = (state, state)
    for _ in range(_MOST_STEPS):
        cosines, states = step(states)
        yield [float(cosine) for cosine in jax.device_get(cosines)]


def _cosine(gradient: Any, update: Any, reverse: Any) -> jax.Array:
    g, d = (x.astype(at_least_float32(x.dtype)) for x in (jnp.asarray(gradient), update - reverse))
    # Scaled to a largest entry of 1, since squares could underflow or overflow.
    g, d = (x / jnp.maximum(jnp.max(jnp.abs(x), initial=0), jnp.finfo(x.dtype).tiny) for x in (g, d))
    norms = jnp.sqrt(jnp.sum(jnp.abs(g) ** 2) * jnp.sum(jnp.abs(d) ** 2))
    return jnp.real(jnp.sum(jnp.conj(g) * d)) / jnp.where(norms > 0, norms, 1)
