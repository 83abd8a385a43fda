"""Measures layer rotation inside the optimizer, in every step."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from layca_optax._norms import norms_of_leaves
from layca_optax._paths import (
    check_same_leaves,
    leaf_boxes,
    natural_order,
    refuse_twice,
    unboxed,
)
from layca_optax._rotation import measure_step
from layca_optax._rules import Rotate, check_rule, refuse_flat, rotating_leaves, vector_axes, vectors_shape
from layca_optax._small_leaves import for_each_leaf
from layca_optax._state import by_path, check_layers, find_states


class TrackRotationState(NamedTuple):
    """State of `track_rotation`; `rotation_report` reads it.

    The dictionaries have one entry per rotating leaf, by its path (`"layers/0/kernel"`). If the parameters
    have no leaves at all, everything but `count` is a scalar 0.

    Attributes:
      count: steps taken, an int32 scalar.
      initial: a copy of the leaf at `init`, with its dtype, its sharding and the Flax variable around it.
      initial_norm: the norms of its vectors, in at least float32, shaped like the axes that enumerate them.
      inverse_norm: 1 divided by these norms; 1 for a zero vector.
      measured: three values per vector, along an additional last axis: the cosine distance from `initial`
        after the latest step, initially 0; the angle of that step in radians, initially 0; the norm after it
        relative to `initial_norm`, initially 1.
    """

    count: jax.Array
    initial: dict[str, Any] | jax.Array
    initial_norm: dict[str, jax.Array] | jax.Array
    inverse_norm: dict[str, jax.Array] | jax.Array
    measured: dict[str, jax.Array] | jax.Array


def track_rotation(*, rotate: Rotate = "layer") -> optax.GradientTransformationExtraArgs:
    r"""Measures how far every layer turns, and passes the updates through unchanged.

    Put it last in a chain, after any optimizer, with or without Layca:

    * `optax.chain(optax.adam(1e-3), track_rotation())`;
    * `optax.chain(optax.scale_by_adam(), layca(3**-5), track_rotation())`.

    For a weight vector :math:`w`, its update :math:`u` and its initial value :math:`w_0` it computes

    .. math:: 1 - \cos(w + u, w_0), \qquad \angle(w + u, w) \qquad\text{and}\qquad \|w + u\| / \|w_0\|

    accurately for small angles too: in float32, an angle of 1e-4 radians to within 1e-3 of its size. Only if
    a step changes the norm by a factor 1 + x, angles below 1e-3 x are lost. :math:`w + u` is what
    `optax.apply_updates` returns, rounded to the parameter's dtype: in bfloat16 many small updates change
    nothing, and the angles show it. Nothing leaves the device until `rotation_report` reads the state.

    It must see the final updates. With `optax.MultiSteps` put it inside
    (`optax.MultiSteps(optax.chain(optimizer, track_rotation()), k)`): outside it would also measure the
    zero updates between steps.

    The state holds a copy of all rotating leaves, with their sharding. To measure only in every tenth step,
    use `optax.conditionally_transform(track_rotation(), lambda step, **_: step % 10 == 0)`.

    Args:
      rotate: which leaves rotate and as how many vectors, as in `layca`.

    Returns:
      An `optax.GradientTransformationExtraArgs` whose state is a `TrackRotationState`. Its `update` needs
      `params`.

    Raises:
      ValueError: at once, for an unknown rule. At `init`, for a leaf that cannot rotate, as in `layca`. At
        `update`, if `params` is missing or does not match the updates or the state. Messages name the path of
        the leaf.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from layca_optax import rotation_report, track_rotation
      >>> params = {"kernel": jnp.eye(2), "bias": jnp.zeros(2)}
      >>> optimizer = optax.chain(optax.sgd(0.1), track_rotation())
      >>> state = optimizer.init(params)
      >>> for _ in range(2):
      ...   gradient = {"kernel": jnp.array([[0.0, 1.0], [-1.0, 0.0]]), "bias": jnp.ones(2)}
      ...   updates, state = optimizer.update(gradient, state, params)
      ...   params = optax.apply_updates(params, updates)
      >>> turned = rotation_report(state)["kernel"]
      >>> print(f"{turned['from_init']:.4f}, {turned['last_step']:.4f} rad, {turned['norm']:.4f}")
      0.0194, 0.0977 rad, 1.0198

    References:
      Carbonnelle and De Vleeschouwer, 2018 (https://arxiv.org/abs/1806.01603), Section 5.3 and Figure 3.
    """
    check_rule(rotate)

    def init_fn(params: optax.Params) -> TrackRotationState:
        refuse_flat("track_rotation", rotate, params)
        count = jnp.zeros([], jnp.int32)
        if not jax.tree.leaves(params):
            return TrackRotationState(count, *(jnp.zeros([]) for _ in range(4)))
        boxes, axes = leaf_boxes(params), vector_axes(rotate, params)
        norms = norms_of_leaves(params, axes)
        # Copies, because parameters may be donated.
        copied = partial(jax.tree.map, partial(jnp.array, copy=True))
        initial = {name: copied(boxes[i]) for name, i, _ in rotating_leaves(params, axes)}
        return TrackRotationState(count, initial, norms, *unmoved(norms))

    def update_fn(
        updates: optax.Updates,
        state: TrackRotationState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, TrackRotationState]:
        del extra_args
        if params is None:
            raise ValueError(
                "track_rotation needs the current parameters: call update(updates, state, params), and use it"
                " in chains and wrappers that pass params on; of an Equinox model pass"
                " eqx.filter(model, eqx.is_inexact_array)"
            )
        check_same_leaves(params, updates, "updates")
        weights = [jnp.asarray(w) for w in jax.tree.leaves(params)]
        steps, treedef = jax.tree.flatten(updates)
        rotating = rotating_leaves(params, vector_axes(rotate, params))
        initial = {name: unboxed(box) for name, box in by_path(state.initial).items()}
        norms = by_path(state.initial_norm)
        shapes = lambda arrays: {name: jnp.shape(x) for name, x in arrays.items()}
        check_layers("track_rotation", shapes(initial), {name: weights[i].shape for name, i, _ in rotating})
        check_layers("track_rotation", shapes(norms), {name: vectors_shape(ax) for name, _, ax in rotating})
        measured: dict[str, jax.Array] = {}
        known = lambda name: (norms[name], state.inverse_norm[name], state.measured[name][..., 2])
        leaves = [((weights[i], steps[i], initial[name]), known(name)) for name, i, _ in rotating]
        results = for_each_leaf(measure_step, leaves, [ax for _, _, ax in rotating])
        for (name, i, _), result in zip(rotating, results, strict=True):
            steps[i], measured[name] = result
        count = jnp.asarray(optax.safe_increment(state.count))
        if weights:
            state = state._replace(measured=measured)
        return jax.tree.unflatten(treedef, steps), state._replace(count=count)

    # optax gives all states one type.
    return optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyrefly: ignore[bad-argument-type]


def rotation_report(opt_state: Any) -> dict[str, dict[str, float | np.ndarray | jax.Array]]:
    """Returns what `track_rotation` measured, read from any optimizer's state.

    Outside `jit` it waits for the device and copies all values at once. Inside `jit` it returns tracers, so
    that a train step can return a report.

    Args:
      opt_state: any tree that holds the state of `track_rotation`: that of `optax.chain`,
        `optax.partition`, `optax.masked`, `optax.MultiSteps`, `optax.inject_hyperparams`, a Linen
        `TrainState`, the `opt_state` of an `nnx.Optimizer`. Several trackers, as in `optax.partition`, must
        track different leaves.

    Returns:
      A dictionary of dictionaries, by the path of every rotating leaf (`layers/2/kernel` before
      `layers/10/kernel`): `"from_init"` is the cosine distance from the leaf at `init`, in [0, 2];
      `"last_step"` the angle of the latest step in radians; `"norm"` the norm relative to that at `init`.
      Each is a float for a leaf that is one vector, otherwise a NumPy array shaped like the enumerated axes.
      In a state from `vmap` or `pmap` the mapped axes come first; inside `jit` all are JAX arrays. The values
      are 0, 0 and 1 before the first step, and NaN where a vector is zero and has no direction.

    Raises:
      ValueError: there is no state of `track_rotation`, or it was restored as a dictionary; two trackers
        report the same path.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from layca_optax import rotation_report, track_rotation
      >>> optimizer = optax.chain(optax.adam(1e-3), track_rotation())
      >>> rotation_report(optimizer.init({"kernel": jnp.eye(2), "bias": jnp.zeros(2)}))
      {'kernel': {'from_init': 0.0, 'last_step': 0.0, 'norm': 1.0}}
    """
    trackers = find_states(
        opt_state,
        (TrackRotationState,),
        "measures rotation",
        "add track_rotation() as the last stage of the chain",
    )
    names = [name for tracker in trackers for name in by_path(tracker.initial)]
    refuse_twice(names, "two trackers report {}: pass rotation_report the state of one of them")
    measured = {name: _of_name(tracker, name) for tracker in trackers for name in by_path(tracker.initial)}
    if not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(measured)):
        measured = jax.device_get(measured)
    report = jax.tree.map(lambda x: x if x.ndim or isinstance(x, jax.core.Tracer) else float(x), measured)
    return {name: report[name] for name in sorted(report, key=natural_order)}


def _of_name(tracker: TrackRotationState, name: str) -> dict[str, jax.Array]:
    numbers = unboxed(tracker.measured[name])
    return {key: numbers[..., i] for i, key in enumerate(("from_init", "last_step", "norm"))}


def unmoved(norms: dict[str, jax.Array]) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Returns `inverse_norm` and `measured` as they are before the first step."""
    inverses = {name: 1 / jnp.where(norm > 0, norm, 1) for name, norm in norms.items()}
    zero_zero_one = lambda n: jnp.stack([jnp.zeros_like(n), jnp.zeros_like(n), jnp.ones_like(n)], -1)
    return inverses, {name: zero_zero_one(norm) for name, norm in norms.items()}
