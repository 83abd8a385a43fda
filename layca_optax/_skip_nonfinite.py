"""Skip the step of those layers whose gradient is not finite, or zero."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from layca_optax._paths import Path, join, leaf_paths, refuse_twice
from layca_optax._rules import is_inexact
from layca_optax._track import TrackRotationState

_Flags = dict[Path, jax.Array]


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
    stays what it was. All other leaves get what they would get if that gradient were zero: the very same
    update as without the NaN, unless `inner` mixes layers, as clipping by the global norm does. So does the
    rest of the state: the step counts of Adam and of schedules go on, and all layers stay in step.

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
      An `optax.GradientTransformationExtraArgs`; its state counts the skipped steps of every leaf, by path:
      `optax.tree.get(state, "skipped_steps")`, and `"zero_steps"`. Where several stand in one optimizer (in
      `optax.partition`), `optax.tree.get_all_with_path` finds the counts of all. Leaves that are neither
      floating nor complex are passed on as they are.

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
        names = [join(path) for path in leaf_paths(params)]
        refuse_twice(names)
        trained = [n for n, leaf in zip(names, jax.tree.leaves(params), strict=True) if is_inexact(leaf)]
        # `optax.tree.map_params` compares with the state of a tree without leaves: there the whole dictionary
        # must be one leaf.
        counts = lambda: {name: jnp.zeros([], jnp.int32) for name in trained} if names else jnp.int32(0)
        return SkipNonfiniteState(inner.init(params), counts(), counts() if zeros else None)

    def update_fn(
        updates: optax.Updates,
        state: SkipNonfiniteState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, SkipNonfiniteState]:
        trained = {path: g for path, g in _by_path(updates).items() if is_inexact(g)}
        bad = {path: ~jnp.all(jnp.isfinite(g)) for path, g in trained.items()}
        zero = {path: jnp.all(g == 0) for path, g in trained.items() if zeros and jnp.size(g)}
        skipped = {path: flag | zero[path] if path in zero else flag for path, flag in bad.items()}
        steps, new = inner.update(_zeroed(updates, bad), state.inner_state, params, **extra_args)
        owners = _owners(inner, updates if params is None else params)
        return _zeroed(steps, skipped), SkipNonfiniteState(
            _kept(state.inner_state, new, owners, skipped),
            _counted(state.skipped_steps, bad),
            _counted(state.zero_steps, zero),
        )

    # optax types all states alike.
    return optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyrefly: ignore[bad-argument-type]


@jax.tree_util.register_static
@dataclass(frozen=True)
class _Place:
    """Stands for a leaf of the parameters, in a tree that has no leaves."""

    path: Path
    leaf: jax.ShapeDtypeStruct

    def __getattr__(self, name: str) -> Any:
        # Functions that label leaves may ask for their shapes.
        return getattr(self.leaf, name)


def _owners(inner: optax.GradientTransformationExtraArgs, params: optax.Params) -> dict[Any, Path]:
    """From places in the inner state to the parameters that it keeps something for there.

    This is the idea of `optax.tree.map_params`, which takes one placeholder for all parameters: functions
    that label or mask a dictionary by its keys fail on that.
    """
    shape = lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x))
    places = [_Place(path, shape(x)) for path, x in _by_path(params).items()]
    try:
        state = inner.init(jax.tree.unflatten(jax.tree.structure(params), places))
    except Exception:
        # It computes with all leaves together, as `optax.flatten` does, and keeps nothing for a single one.
        return {}
    nodes = jax.tree_util.tree_leaves_with_path(state, is_leaf=lambda node: isinstance(node, _Place))
    return {keys: node.path for keys, node in nodes if isinstance(node, _Place)}


def _kept(old: Any, new: Any, owners: dict[Any, Path], skipped: _Flags) -> Any:
    """The new inner state, with the old one for the leaves that skip the step."""
    is_tracker = lambda node: isinstance(node, TrackRotationState)
    before = dict(jax.tree_util.tree_leaves_with_path(old, is_leaf=is_tracker))

    def keep(keys: Any, x: Any) -> Any:
        if keys in before and is_tracker(x):
            return _stood_still(before[keys], x, skipped)
        owner = next((owners[keys[:n]] for n in range(len(keys) + 1) if keys[:n] in owners), None)
        # Some transformations have leaves in their state only after the first step.
        return jnp.where(skipped[owner], before[keys], x) if owner in skipped and keys in before else x

    return jax.tree_util.tree_map_with_path(keep, new, is_leaf=is_tracker)


def _stood_still(
    before: TrackRotationState, after: TrackRotationState, skipped: _Flags
) -> TrackRotationState:
    """What the tracker would have measured of updates of zero."""
    if not isinstance(after.measured, dict):
        return after
    measured = dict(after.measured)
    for path, flag in skipped.items():
        if (name := join(path)) in measured:
            now, then = measured[name], before.measured[name]
            # Not every step is measured.
            is_new = jnp.any(now != then, axis=-1, keepdims=True)
            stood = jnp.stack([then[..., 0], 0 * then[..., 1], then[..., 2]], axis=-1)
            measured[name] = jnp.where(flag & is_new, stood, now)
    return after._replace(measured=measured)


def _zeroed(tree: Any, skipped: _Flags) -> Any:
    zero = lambda path, x: jnp.where(skipped[path], jnp.zeros_like(x), x) if path in skipped else x
    leaves = [zero(path, x) for path, x in _by_path(tree).items()]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def _by_path(tree: Any) -> dict[Path, Any]:
    return dict(zip(leaf_paths(tree), jax.tree.leaves(tree), strict=True))


def _counted(counts: Any, skipped: _Flags) -> Any:
    flags = {join(path): flag for path, flag in skipped.items()}
    if not isinstance(counts, dict):
        return counts
    return {name: jnp.where(flags.get(name, False), optax.safe_increment(n), n) for name, n in counts.items()}
