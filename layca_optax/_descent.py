"""Whether an optimizer goes down the gradient or, by a wrong sign, up."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from layca_optax._floats import at_least_float32
from layca_optax._paths import check_same_leaves, join, leaf_paths
from layca_optax._rules import is_inexact

# Accumulated gradients and warm-ups begin with updates of zero.
_MOST_STEPS = 1000


def check_descent(
    optimizer: optax.GradientTransformation, params: Any, gradients: Any, **extra_args: Any
) -> None:
    """Raises an error if an optimizer's updates point up the gradient, and names the leaves.

    Call it once, before training, outside of `jit`. A wrong `flip_sign` in `layca` is found so: it climbs the
    loss with all the looks of training. So is a sign that `others` forgets to turn.

    It compares the updates for `gradients` with those for `-gradients`: what both have in common, such as
    weight decay, has no say. If the first updates are zero in every entry, as in a warm-up or while
    `optax.MultiSteps` accumulates, it goes on with the same gradients. It needs the memory of three states of
    the optimizer for a moment. Nothing that you pass is changed.

    Args:
      optimizer: any optax transformation whose updates are added in the end.
      params: the parameters.
      gradients: a tree like `params`: gradients of the loss, or anything else that is not zero; the sign that
        an optimizer gives them does not depend on the loss.
      **extra_args: what else the `update` of the optimizer needs.

    Raises:
      ValueError: the updates of a leaf point up its gradient, or are not finite; 1,000 updates are zero in
        every entry; the two trees have different leaves; called inside of `jit`.

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
    """What is wrong with the direction of the updates, in words; empty if nothing is."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((params, gradients))):
        raise ValueError("check_descent needs values: call it outside of jit")
    names = [join(path) for path in leaf_paths(params)]
    for cosines in _cosines(optimizer, params, gradients, extra_args):
        if broken := [name for name, cosine in zip(names, cosines, strict=True) if np.isnan(cosine)]:
            return f"gradients or updates are not finite at {_listed(broken)}"
        # Rounding alone turns no update by this much.
        if climb := [name for name, cosine in zip(names, cosines, strict=True) if cosine > 1e-3]:
            return (
                f"the updates climb the loss at {_listed(climb)}. Behind a finished optimizer such as"
                " optax.adam, which has turned the gradient's sign already, it must be"
                " layca(…, flip_sign=False); behind optax.scale_by_adam, or alone, flip_sign=True. What"
                " `others` does is added as it is: others=optax.scale_by_learning_rate(…) turns the sign"
            )
        if any(cosines):
            return ""
    return f"the updates are zero in every entry, in {_MOST_STEPS:,} steps with the same gradients"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 5:,} more leaves" if len(names) > 5 else ""
    return ", ".join(map(repr, names[:5])) + more


def _cosines(
    optimizer: Any, params: Any, gradients: Any, extra_args: dict[str, Any]
) -> Iterator[list[float]]:
    """For every step the cosine of each leaf's update with its gradient; 0 where one of them is zero."""
    update = optax.with_extra_args_support(optimizer).update
    down = jax.tree.map(lambda g: -g if is_inexact(g) else g, gradients)

    @jax.jit
    def step(states: Any) -> Any:
        (up_updates, up), (down_updates, down_state) = (
            update(g, state, params, **extra_args) for g, state in zip((gradients, down), states, strict=True)
        )
        leaves = zip(*map(jax.tree.leaves, (gradients, up_updates, down_updates)), strict=True)
        return [_cosine(g, u, v) if is_inexact(g) else jnp.zeros([]) for g, u, v in leaves], (up, down_state)

    # In `jit`, where vectors that start at zero are no error.
    state = jax.jit(optimizer.init)(params)
    states = (state, state)
    for _ in range(_MOST_STEPS):
        cosines, states = step(states)
        yield [float(cosine) for cosine in jax.device_get(cosines)]


def _cosine(gradient: Any, update: Any, reverse: Any) -> jax.Array:
    g, d = (x.astype(at_least_float32(x.dtype)) for x in (jnp.asarray(gradient), update - reverse))
    # Brought to size 1 first: squares could vanish or overflow.
    g, d = (x / jnp.maximum(jnp.max(jnp.abs(x), initial=0), jnp.finfo(x.dtype).tiny) for x in (g, d))
    norms = jnp.sqrt(jnp.sum(jnp.abs(g) ** 2) * jnp.sum(jnp.abs(d) ** 2))
    return jnp.real(jnp.sum(jnp.conj(g) * d)) / jnp.where(norms > 0, norms, 1)
