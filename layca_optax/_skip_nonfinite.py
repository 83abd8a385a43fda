"""Skip the step of those layers whose gradient is not finite, or zero."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from layca_optax._paths import join, leaf_paths, refuse_twice
from layca_optax._rules import as_array, is_inexact
from layca_optax._state import by_path
from layca_optax._track import TrackRotationState

_Flags = dict[str, jax.Array]


class SkipNonfiniteState(NamedTuple):
    """State of `skip_nonfinite`.

    Attributes:
      inner_state: state of the wrapped transformation.
      skipped_steps: from the path of every floating or complex leaf to the number of steps that it skipped
        because its gradient held NaN or inf, int32 scalars; a scalar 0 if there are no leaves at all.
      zero_steps: the same of gradients that were zero in every entry; `None` without `zeros=True`.
    """

    inner_state: optax.OptState
    skipped_steps: dict[str, jax.Array] | jax.Array
    zero_steps: dict[str, jax.Array] | jax.Array | None = None


def skip_nonfinite(
    inner: optax.GradientTransformation, zeros: bool = False
) -> optax.GradientTransformationExtraArgs:
    """Skips the step of a layer whose gradient holds NaN or inf; every other layer trains on.

    `optax.apply_if_finite` drops a step for the whole network. This drops it for the leaf whose gradient
    holds a NaN or an inf: its update is zero, and what `inner` keeps for it (moments, traces, accumulators)
    stays what it was. All other leaves, and step counts, get what they would get if that gradient were zero.

    Wrap the whole optimizer, clipping included, so that nothing in it ever sees a NaN:
    `skip_nonfinite(optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam(), layca(lr)))`. A
    `track_rotation` in it reports an angle of 0 for a step that is skipped.

    With `zeros=True` a leaf whose gradient is zero in every entry skips the step too. Otherwise Layca behind
    Adam or momentum turns it by the full angle for hundreds of steps, in the direction of old gradients:
    an expert that no token reached, a head that no batch used. Put it inside of `optax.MultiSteps` then. To
    freeze a leaf, do not make its gradient zero: give it the learning rate 0, or use `optax.partition`.

    Args:
      inner: any optax transformation; extra arguments are passed on to it.
      zeros: whether to skip gradients that are zero in every entry as well.

    Returns:
      An `optax.GradientTransformationExtraArgs` with a `SkipNonfiniteState`. Leaves that are neither
      floating nor complex are passed on as they are. `optax.tree.get(state, "skipped_steps")` reads the
      counts; where several wrappers stand in one optimizer, `optax.tree.get_all_with_path` reads them all.

    Raises:
      ValueError: at `init`, if two leaves of the parameters have the same path.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from layca_optax import layca, skip_nonfinite
      >>> params = {"head": jnp.eye(2), "stem": jnp.eye(2)}
      >>> optimizer = skip_nonfinite(optax.chain(optax.scale_by_adam(), layca(0.1)))
      >>> gradients = {"head": jnp.ones((2, 2)), "stem": jnp.full((2, 2), jnp.nan)}
      >>> updates, state = optimizer.update(gradients, optimizer.init(params), params)
      >>> {path: bool(jnp.any(update != 0)) for path, update in updates.items()}
      {'head': True, 'stem': False}
      >>> {path: int(steps) for path, steps in optax.tree.get(state, "skipped_steps").items()}
      {'head': 0, 'stem': 1}

    References:
      Carbonnelle and De Vleeschouwer, `On layer-level control of DNN training and its impact on
      generalization <https://arxiv.org/abs/1806.01603>`_, 2018, Section A.2, item 4, replaces NaN in
      Layca's update by zeros, which leaves the base optimizer's moments spoiled.
    """
    inner = optax.with_extra_args_support(inner)

    def init_fn(params: optax.Params) -> SkipNonfiniteState:
        leaves = _named(params)
        refuse_twice(name for name, _ in leaves)
        trained = [name for name, leaf in leaves if is_inexact(leaf)]
        # `optax.tree.map_params` compares with the state of a tree without leaves: there the whole dictionary
        # must be one leaf.
        counts = lambda: {name: jnp.zeros([], jnp.int32) for name in trained} if leaves else jnp.int32(0)
        return SkipNonfiniteState(inner.init(params), counts(), counts() if zeros else None)

    def update_fn(
        updates: optax.Updates,
        state: SkipNonfiniteState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, SkipNonfiniteState]:
        trained = [(name, g) for name, g in _named(updates) if is_inexact(g)]
        bad = {name: ~jnp.all(jnp.isfinite(g)) for name, g in trained}
        zero = {name: jnp.all(g == 0) for name, g in trained if zeros and jnp.size(g)}
        skipped = bad | {name: bad[name] | flag for name, flag in zero.items()}
        steps, new = inner.update(_zeroed(updates, bad), state.inner_state, params, **extra_args)
        try:
            places = inner.init(_places(updates if params is None else params))
        except Exception:
            # It computes with all leaves together, as `optax.flatten` does, and keeps nothing by leaf.
            places = None
        return _zeroed(steps, skipped), SkipNonfiniteState(
            _kept(state.inner_state, new, places, skipped),
            _counted(state.skipped_steps, bad),
            _counted(state.zero_steps, zero),
        )

    # optax types all states alike.
    return optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyrefly: ignore[bad-argument-type]


@jax.tree_util.register_static
class _Place(jax.ShapeDtypeStruct):
    """Stands for a leaf, in a tree without leaves: it is found where a state keeps something for the leaf.

    `optax.tree.map_params` does the same with one placeholder for all parameters: functions that label or
    mask a dictionary by its keys fail on that.
    """

    name: str


def _places(tree: Any) -> Any:
    places: list[_Place | None] = []
    for name, x in _named(tree):
        # An Equinox model has functions among its leaves; states keep nothing for them.
        place = _Place(jnp.shape(x), jnp.result_type(x)) if hasattr(as_array(x), "shape") else None
        if place is not None:
            place.name = name
        places.append(place)
    return jax.tree.unflatten(jax.tree.structure(tree), places)


def _kept(old: Any, new: Any, places: Any, skipped: _Flags) -> Any:
    """The new inner state, with the old one for the leaves that skip the step."""
    is_place = lambda node: isinstance(node, _Place)
    is_tracker = lambda node: isinstance(node, TrackRotationState)
    nodes = jax.tree_util.tree_leaves_with_path(places, is_leaf=is_place)
    owners = {keys: node.name for keys, node in nodes if is_place(node)}
    before = dict(jax.tree_util.tree_leaves_with_path(old, is_leaf=is_tracker))

    def keep(keys: Any, x: Any) -> Any:
        # Some transformations have leaves in their state only after the first step.
        if keys not in before:
            return x
        if is_tracker(x):
            return _stood_still(before[keys], x, skipped)
        owner = next((owners[keys[:n]] for n in range(len(keys) + 1) if keys[:n] in owners), None)
        return jnp.where(skipped[owner], before[keys], x) if owner in skipped else x

    return jax.tree_util.tree_map_with_path(keep, new, is_leaf=is_tracker)


def _stood_still(old: TrackRotationState, new: TrackRotationState, skipped: _Flags) -> TrackRotationState:
    """What the tracker would have measured of updates of zero."""

    def measured(name: str, now: jax.Array) -> jax.Array:
        then = old.measured[name]
        # A tracker in `optax.conditionally_transform` does not measure every step.
        is_new = jnp.any(now != then, axis=-1, keepdims=True)
        return jnp.where(skipped[name] & is_new, then.at[..., 1].set(0), now)

    numbers = by_path(new.measured)
    stood = {name: measured(name, x) for name, x in numbers.items() if name in skipped}
    return new._replace(measured=numbers | stood) if stood else new


def _zeroed(tree: Any, skipped: _Flags) -> Any:
    zero = lambda name, x: jnp.where(skipped[name], jnp.zeros_like(x), x) if name in skipped else x
    return jax.tree.unflatten(jax.tree.structure(tree), [zero(name, x) for name, x in _named(tree)])


def _counted(counts: Any, skipped: _Flags) -> Any:
    more = lambda name, n: jnp.where(skipped[name], optax.safe_increment(n), n) if name in skipped else n
    return {name: more(name, n) for name, n in counts.items()} if skipped else counts


def _named(tree: Any) -> list[tuple[str, Any]]:
    return [(join(path), x) for path, x in zip(leaf_paths(tree), jax.tree.leaves(tree), strict=True)]
