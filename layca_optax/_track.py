"""Layer rotation measured inside the optimizer, at every step or at every k-th."""

import re
from collections import Counter
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from layca_optax._numbers import Numbers, pack, unpack
from layca_optax._paths import check_same_leaves, join, leaf_boxes, leaf_paths
from layca_optax._rotation import measure_step
from layca_optax._rules import Axes, Rotate, check_rule, vector_axes
from layca_optax._vectors import after, compute_dtype, vector_norms, waits_for

Arrays = dict[str, jax.Array]
NamedAxes = tuple[tuple[str, Axes], ...]


class TrackRotationState(NamedTuple):
    """State of `track_rotation`; `rotation_report` reads it.

    The dictionaries have one entry a rotating leaf, by its path (`"layers/0/kernel"`). If the parameters have
    no leaves at all, a scalar 0 stands in place of everything but `count`.

    Attributes:
      count: steps taken, an int32 scalar.
      initial: a copy of the leaf at `init`, with its dtype, its sharding and the Flax variable around it.
      initial_norm: the norms of its vectors, in at least float32, as the next two.
      from_init: the cosine distances from `initial` after the latest step that was measured; at first 0.
      last_step: the angles of that step, in radians; at first 0.
      previous: with `every` above 1, a copy of the leaf before that step, like `initial`; otherwise empty.
    """

    count: jax.Array
    initial: dict[str, Any] | jax.Array
    initial_norm: Numbers | jax.Array
    from_init: Numbers | jax.Array
    last_step: Numbers | jax.Array
    previous: dict[str, Any] | jax.Array


def track_rotation(*, rotate: Rotate = "layer", every: int = 1) -> optax.GradientTransformationExtraArgs:
    r"""Measures how far every layer turns, and leaves the updates as they are.

    Put it last in a chain, behind any optimizer, with or without Layca:

    * `optax.chain(optax.adam(1e-3), track_rotation())`;
    * `optax.chain(optax.scale_by_adam(), layca(3**-5), track_rotation())`.

    For a weight vector :math:`w`, its update :math:`u` and its initial value :math:`w_0` it computes

    .. math:: 1 - \cos(w + u, w_0) \qquad\text{and}\qquad \angle(w + u, w)

    as `layer_rotation` does, accurately for the smallest angles too. :math:`w + u` is what
    `optax.apply_updates` returns, rounded to the parameter's dtype: in bfloat16 many small updates change
    nothing, and that is seen. Nothing leaves the device; `rotation_report` reads the state when you want to.

    It must see the updates that are added in the end. Under `optax.MultiSteps` put it inside
    (`optax.MultiSteps(optax.chain(optimizer, track_rotation()), k)`): behind it, it would measure the
    steps of zero in between.

    The state holds a copy of all rotating leaves, sharded as they are. With `every=k` it holds a second one:
    what the weights were before a step is kept only if that step is measured, and the others cost nothing.
    (Under `vmap`, which turns `jax.lax.cond` into a selection, every step is measured and then dropped.)

    Args:
      rotate: which leaves rotate and as how many vectors, as in `layca`.
      every: measure at the steps 1, `every` + 1, 2 `every` + 1, …; the measurement stays until the next.

    Returns:
      An `optax.GradientTransformationExtraArgs` whose state is a `TrackRotationState`. Its `update` needs
      `params`.

    Raises:
      ValueError: at once, for an unknown rule or an `every` that is no positive int; at `init`, for a complex
        leaf that would rotate; at `update`, if `params` is missing or does not match the updates or the
        state. Messages name the path of the leaf.

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
      >>> report = rotation_report(state)
      >>> print(f"{report['kernel']['from_init']:.4f}")  # 1 - cos(arctan(0.2))
      0.0194
      >>> print(f"{report['kernel']['last_step']:.4f} rad")  # arctan(0.2) - arctan(0.1)
      0.0977 rad

    References:
      Carbonnelle and De Vleeschouwer, `On layer-level control of DNN training and its impact on
      generalization <https://arxiv.org/abs/1806.01603>`_, 2018, Section 5.3 and Figure 3.
    """
    check_rule(rotate)
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ValueError(f"every must be a positive int, not {every!r}")

    def init_fn(params: optax.Params) -> TrackRotationState:
        count = jnp.zeros([], jnp.int32)
        if not jax.tree.leaves(params):
            return TrackRotationState(count, *(jnp.zeros([]) for _ in range(5)))
        leaves = zip(leaf_paths(params), leaf_boxes(params), vector_axes(rotate, params), strict=True)
        rotating = [(join(path), box, ax) for path, box, ax in leaves if ax is not None]
        _refuse_twice([name for name, _, _ in rotating], "two leaves of the parameters are called {}")
        # Copies: parameters may be donated.
        copies = lambda: {name: jax.tree.map(partial(jnp.array, copy=True), box) for name, box, _ in rotating}
        initial = copies()
        norms = pack({name: vector_norms(_unboxed(initial[name]), ax) for name, _, ax in rotating})
        return TrackRotationState(
            count=count,
            initial=initial,
            initial_norm=norms,
            from_init=jax.tree.map(jnp.zeros_like, norms),
            last_step=jax.tree.map(jnp.zeros_like, norms),
            previous=copies() if every > 1 else {},
        )

    def update_fn(
        updates: optax.Updates,
        state: TrackRotationState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, TrackRotationState]:
        del extra_args
        if params is None:
            raise ValueError(
                "track_rotation needs the current parameters: call update(updates, state, params), and put it"
                " in chains and wrappers that pass params on"
            )
        check_same_leaves(params, updates, "updates")
        steps, treedef = jax.tree.flatten(updates)
        leaves = zip(leaf_paths(params), jax.tree.leaves(params), vector_axes(rotate, params), strict=True)
        rotating = [(i, join(path), w, ax) for i, (path, w, ax) in enumerate(leaves) if ax is not None]
        weights = {name: w for _, name, w, _ in rotating}
        check_same_leaves(weights, _entries(state.initial), "the state of track_rotation")
        turns = {name: steps[i] for i, name, _, _ in rotating}
        axes = tuple((name, ax) for _, name, _, ax in rotating)
        if weights and every == 1:
            turns, state = _measure(state, weights, turns, axes)
        elif weights:
            turns, state = _measure_some(state, weights, turns, axes, every)
        for i, name, _, _ in rotating:
            steps[i] = turns[name]
        updates = jax.tree.unflatten(treedef, steps)
        return updates, state._replace(count=jnp.asarray(optax.safe_increment(state.count)))

    # optax types all states alike.
    return optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyrefly: ignore[bad-argument-type]


def rotation_report(opt_state: optax.OptState) -> dict[str, dict[str, float | np.ndarray]]:
    """What `track_rotation` measured, wherever in an optimizer's state it stands.

    Outside `jit` it waits for the device and copies the numbers, all at once. Inside, where the numbers are
    not known yet, it says where they are: so a train step can return them.

    Args:
      opt_state: any tree that holds the state of `track_rotation`: that of `optax.chain`,
        `optax.partition`, `optax.masked`, `optax.MultiSteps`, `optax.inject_hyperparams`, a Linen
        `TrainState`, the `opt_state` of an `nnx.Optimizer`. Several trackers, as in `optax.partition`, must
        track different leaves.

    Returns:
      A dictionary from the path of every rotating leaf (`layers/2/kernel` before `layers/10/kernel`) to
      another: `"from_init"`, the cosine distance from where the leaf was at `init`, in [0, 2], and
      `"last_step"`, the angle in radians of the latest single step that was measured. Each is a float for a
      leaf that is one vector, a NumPy array shaped like the enumerated axes otherwise; of a state from
      `vmap` or `pmap`, an array with those axes first; inside `jit` always a JAX array. Both are 0 before
      the first step, NaN where a vector is zero and has no direction.

    Raises:
      ValueError: there is no state of `track_rotation`; two trackers report the same path.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from layca_optax import rotation_report, track_rotation
      >>> optimizer = optax.chain(optax.adam(1e-3), track_rotation())
      >>> rotation_report(optimizer.init({"kernel": jnp.eye(2), "bias": jnp.zeros(2)}))
      {'kernel': {'from_init': 0.0, 'last_step': 0.0}}
    """
    is_tracker = lambda node: isinstance(node, TrackRotationState)
    trackers = [node for node in jax.tree.leaves(opt_state, is_leaf=is_tracker) if is_tracker(node)]
    if not trackers:
        raise ValueError(
            "nothing in this state measures rotation: add track_rotation() as the last stage of the chain"
        )
    names = [name for tracker in trackers for name in _entries(tracker.initial)]
    _refuse_twice(names, "two trackers report {}: give rotation_report the part of the state that holds one")
    is_box = lambda node: not isinstance(node, (tuple, dict, type(None)))
    measured = [jax.tree.map(_unboxed, (t.from_init, t.last_step), is_leaf=is_box) for t in trackers]
    if not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(measured)):
        measured = jax.device_get(measured)
    report = {}
    for tracker, (from_init, last_step) in zip(trackers, measured, strict=True):
        paths = _entries(tracker.initial)
        distances, angles = (unpack(x, paths) for x in (from_init, last_step))
        report |= {name: {"from_init": distances[name], "last_step": angles[name]} for name in paths}
    report = jax.tree.map(lambda x: x if x.ndim or isinstance(x, jax.core.Tracer) else float(x), report)
    return {name: report[name] for name in sorted(report, key=_natural)}


@partial(jax.jit, static_argnames="axes")
def _measure(
    state: TrackRotationState, weights: Arrays, updates: Arrays, axes: NamedAxes
) -> tuple[Arrays, TrackRotationState]:
    """The updates, and the state with what they do.

    The new weights are computed again for every look at them: to store them beside the old ones, which are
    needed until the last look, costs more. XLA computes the same only once, hence what each look waits for.
    """
    norms = unpack(state.initial_norm, weights)
    from_init, last_step = {}, {}
    for name, ax in axes:
        w, u = weights[name], updates[name]
        before = waits_for(w, list(last_step.values()))
        new_weights = lambda seen, w=w, u=u, before=before: _new_weights(w, u, seen, *before)
        from_init[name], last_step[name] = measure_step(
            w, new_weights, _unboxed(state.initial[name]), norms[name], ax
        )
    updates = {name: after(u, last_step[name]) for name, u in updates.items()}
    return updates, state._replace(from_init=pack(from_init), last_step=pack(last_step))


def _new_weights(weights: jax.Array, updates: jax.Array, *seen: jax.Array) -> jax.Array:
    """What `optax.apply_updates` returns before it rounds, computed after something was seen."""
    dtype = jnp.promote_types(compute_dtype(weights), updates.dtype)
    return weights.astype(dtype) + after(updates.astype(dtype), *seen)


# Compiled, because outside jit `lax.cond` would be compiled anew at every call.
@partial(jax.jit, static_argnames=("axes", "every"))
def _measure_some(
    state: TrackRotationState, weights: Arrays, updates: Arrays, axes: NamedAxes, every: int
) -> tuple[Arrays, TrackRotationState]:
    """As `_measure`, but the state changes at every k-th step only.

    New weights are written over the old ones if those are donated. One choice that reads both would forbid
    that and make every step copy them. Hence a choice before, whether to keep the old ones, and one after.
    The updates wait for the first.
    """
    measuring = state.count % every == 0
    kept = _entries(state.previous)
    boxed = {name: jax.tree.unflatten(jax.tree.structure(box), [weights[name]]) for name, box in kept.items()}
    previous, chosen = jax.lax.cond(measuring, lambda: (boxed, jnp.int32(1)), lambda: (kept, jnp.int32(0)))
    updates = {name: after(update, chosen) for name, update in updates.items()}
    # In the words of `optax.apply_updates`: in a step that does both, these are the same arrays.
    new_weights = {name: jnp.asarray(w + updates[name]).astype(w.dtype) for name, w in weights.items()}

    def angles() -> tuple[Any, Any]:
        norms = unpack(state.initial_norm, weights)
        from_init, last_step = {}, {}
        for name, ax in axes:
            old, initial = _unboxed(previous[name]), _unboxed(state.initial[name])
            from_init[name], last_step[name] = measure_step(
                old, lambda _, name=name: new_weights[name], initial, norms[name], ax
            )
        return pack(from_init), pack(last_step)

    from_init, last_step = jax.lax.cond(measuring, angles, lambda: (state.from_init, state.last_step))
    return updates, state._replace(from_init=from_init, last_step=last_step, previous=previous)


def _entries(by_path: dict[str, Any] | Any) -> dict[str, Any]:
    return by_path if isinstance(by_path, dict) else {}


def _unboxed(box: Any) -> jax.Array:
    """The array in a Flax variable: one of the parameters', or one that `nnx.Optimizer` made."""
    (array,) = jax.tree.leaves(box)
    return array


def _refuse_twice(names: list[str], message: str) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(message.format(repr(name)))


def _natural(name: str) -> list[str | int]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)]
