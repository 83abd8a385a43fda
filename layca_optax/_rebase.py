"""Corrects and checks states whose weights were loaded or changed after `init`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from layca_optax._layca import LaycaState
from layca_optax._norms import norms_of_leaves, refuse_zero_vectors
from layca_optax._paths import unboxed
from layca_optax._rules import Rotate, check_rule, rotating_leaves, vector_axes
from layca_optax._state import by_path, find_states, reboxed
from layca_optax._track import TrackRotationState, unmoved


def rebase(opt_state: Any, params: Any, *, rotate: Rotate = "layer") -> Any:
    """Replaces the initial norms and reference weights in an optimizer's state by those of `params`.

    `layca` restores the norms that the weights had at `init`. If weights are loaded later, or changed by
    anything but its updates, the first step scales them back to the old norms. So load weights and then call
    `init`. If that is impossible because moments and counts must stay, call `rebase` after loading, and also
    after weights were resized.

    Args:
      opt_state: any tree that holds states of `layca` or `track_rotation`: that of `optax.chain`,
        `optax.masked`, `optax.partition`, `optax.MultiSteps`, `optax.inject_hyperparams`, `skip_nonfinite`,
        the `opt_state` of an `nnx.Optimizer`.
      params: the current weights.
      rotate: the rule of these transformations, as in `layca`. If they have different rules, a function
        that covers them all.

    Returns:
      A tree like `opt_state`, with everything else kept. It shares no array with `params`. In the state of
      `track_rotation`, `params` become the initial weights, at distance 0 and norm 1; the angles of the
      latest steps are kept.

    Raises:
      ValueError: there is no such state; the state has a leaf that is missing in `params`, or that `rotate`
        treats differently from the optimizer; a vector that `layca` turns is zero, if its value can be seen.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from layca_optax import layca, rebase
      >>> optimizer = optax.chain(optax.scale_by_adam(), layca(0.1))
      >>> opt_state = optimizer.init({"kernel": jnp.eye(2)})
      >>> loaded = {"kernel": 10 * jnp.eye(2)}
      >>> opt_state = rebase(opt_state, loaded)
      >>> print(f"{opt_state[1].initial_norm['kernel']:.2f}")
      14.14
    """
    check_rule(rotate)
    ours = (LaycaState, TrackRotationState)
    find_states(opt_state, ours, "is of layca or track_rotation", "nothing has to be rebased")
    axes = vector_axes(rotate, params)
    norms = norms_of_leaves(params, axes)
    leaves = jax.tree.leaves(params)
    weights = {name: leaves[i] for name, i, _ in rotating_leaves(params, axes)}

    def rebased(state: Any) -> Any:
        if not isinstance(state, ours) or not isinstance(state.initial_norm, dict):
            return state
        _refuse_other_layers(state, norms, rotate)
        # Copies, because states may be donated, and no array may be donated twice.
        mine = {name: jnp.array(norms[name], copy=True) for name in state.initial_norm}
        if isinstance(state, TrackRotationState):
            return _rebased_tracker(state, {name: weights[name] for name in mine}, mine)
        refuse_zero_vectors(mine, rotate)
        return state._replace(initial_norm=reboxed(state.initial_norm, mine))

    return jax.tree.map(rebased, opt_state, is_leaf=lambda node: isinstance(node, ours))


def check_state(opt_state: Any) -> None:
    """Raises an error that names the vectors in a state of `layca` that can never turn.

    Outside `jit`, `init` raises this error itself. Inside `jit` it cannot see the weights, and a vector that
    starts at zero would silently stay zero. So call this once, outside `jit`:
    `opt_state = jax.jit(optimizer.init)(params); check_state(opt_state)`.

    Args:
      opt_state: any tree that holds states of `layca`, as in `rebase`.

    Raises:
      ValueError: an initial norm is 0, not finite, or above a quarter of the largest number; there is no
        state of `layca`; the call is inside `jit`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from layca_optax import check_state, layca
      >>> opt_state = jax.jit(layca().init)({"kernel": jnp.eye(2), "head": jnp.zeros((2, 2))})
      >>> try:
      ...   check_state(opt_state)
      ... except ValueError as error:
      ...   print(str(error).partition(".")[0])
      these vectors can never turn: 'head' (norm 0)
    """
    states = find_states(opt_state, (LaycaState,), "is of layca", "there are no vectors to check")
    stuck = []
    for state in states:
        for name, box in by_path(state.initial_norm).items():
            norms = jnp.asarray(unboxed(box))
            if isinstance(norms, jax.core.Tracer):
                raise ValueError("check_state needs values: call it outside jit")
            stuck += _stuck(name, norms)
    if stuck:
        more = f" and {len(stuck) - 5} more leaves" if len(stuck) > 5 else ""
        raise ValueError(
            f"these vectors can never turn: {', '.join(stuck[:5])}{more}. Initialise them to something else,"
            " or let `rotate` return None for them. If the weights are right, only the state is wrong:"
            " optimizer.init(params) or rebase(opt_state, params) takes their norms again."
        )


def _rebased_tracker(
    state: TrackRotationState, weights: dict[str, jax.Array], norms: dict[str, jax.Array]
) -> TrackRotationState:
    """Makes these weights the reference and keeps the angles of the latest steps."""
    inverses, measured = unmoved(norms)
    for name, numbers in by_path(state.measured).items():
        last_step = unboxed(numbers)[..., 1]
        if last_step.shape == norms[name].shape:
            measured[name] = measured[name].at[..., 1].set(last_step)
    copies = {name: jnp.array(w, copy=True) for name, w in weights.items()}
    return TrackRotationState(
        state.count,
        reboxed(state.initial, copies),
        reboxed(state.initial_norm, norms),
        reboxed(state.inverse_norm, inverses),
        reboxed(state.measured, measured),
    )


def _refuse_other_layers(state: Any, norms: dict[str, jax.Array], rotate: Rotate) -> None:
    owner = "layca" if isinstance(state, LaycaState) else "track_rotation"
    rule = repr(rotate) if isinstance(rotate, str) else "a function"
    for name, box in state.initial_norm.items():
        if name not in norms:
            raise ValueError(
                f"{name!r} rotates in this state of {owner}, but not in params with rotate={rule}."
                " Pass the weights that belong to the state, and as `rotate` the rule of its optimizer"
            )
        # The lengths of the axes may have changed with the weights; `update` compares them.
        if norms[name].ndim != unboxed(box).ndim:
            raise ValueError(
                f"{name!r} has norms of shape {unboxed(box).shape} in this state of {owner}, and"
                f" {norms[name].shape} with rotate={rule}. Pass the rule of the optimizer as `rotate`"
            )


def _stuck(name: str, norms: jax.Array) -> list[str]:
    """Describes the vectors of a leaf, on this host, that cannot turn; empty if all can."""
    found: dict[tuple[int, ...], float] = {}
    for shard in norms.addressable_shards:
        values = np.asarray(shard.data)
        start = [index.start or 0 for index in shard.index]
        for where in np.argwhere(~((values > 0) & (values < float(jnp.finfo(norms.dtype).max) / 4))):
            index = tuple(int(i) + first for i, first in zip(where, start, strict=True))
            found[index] = float(values[tuple(where)])
    if not found:
        return []
    kinds = ", ".join(f"{norm:g}" for norm in dict.fromkeys(found.values()))
    if norms.ndim == 0:
        return [f"{name!r} (norm {kinds})"]
    shown = ", ".join(str(index[0] if len(index) == 1 else index) for index in sorted(found)[:5])
    return [f"{name!r} at {shown}{', …' if len(found) > 5 else ''} (norm {kinds})"]
