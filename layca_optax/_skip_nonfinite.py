"""Skip the step of those layers whose gradient is not finite."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from layca_optax._paths import Path, hole_paths, join, leaf_paths
from layca_optax._rules import is_inexact


class SkipNonfiniteState(NamedTuple):
    """State of `skip_nonfinite`.

    Attributes:
      inner_state: state of the wrapped transformation.
      skipped_steps: from the path of every floating or complex leaf to the number of steps that it has
        skipped, int32 scalars; `zeros(0)` if the parameters have no leaves at all.
    """

    inner_state: optax.OptState
    skipped_steps: dict[str, jax.Array] | jax.Array


def skip_nonfinite(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """A layer whose gradient holds NaN or inf skips the step; every other layer trains on.

    `optax.apply_if_finite` drops a step for the whole network. This drops it for the leaf whose gradient
    holds a NaN or an inf: its update is zero and its part of the state of `inner` stays what it was. All
    other leaves get what they would get if that gradient were zero: the very same update as without the NaN,
    unless `inner` mixes layers, as clipping by the global norm does.

    Wrap the whole optimizer, clipping included, so that nothing in it ever sees a NaN:
    `skip_nonfinite(optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam(), layca(lr)))`.

    A leaf's part of the state is found by path, in every subtree of the state that has the same leaves as the
    gradients (moments, traces, accumulators), also where parts of it are masked or `None` and where the
    entries have another shape (factored moments). The rest of the state is advanced as if the gradient
    had been zero: the step counts of Adam and of schedules go on, so that all layers stay in step.

    How many steps each leaf has skipped is in the state, by path:
    `optax.tree.get(state, "skipped_steps")`. Where several `skip_nonfinite` stand in one optimizer
    (in `optax.partition`), `optax.tree.get_all_with_path(state, "skipped_steps")` finds the counts of all.

    Args:
      inner: any optax transformation; extra arguments are passed on to it.

    Returns:
      An `optax.GradientTransformationExtraArgs`. Leaves that are neither floating nor complex are passed on
      as they are.

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
        leaves = zip(leaf_paths(params), jax.tree.leaves(params), strict=True)
        counts = {join(path): jnp.zeros([], jnp.int32) for path, leaf in leaves if is_inexact(leaf)}
        # `optax.tree.map_params` compares with the state of a tree without leaves: there the whole dictionary
        # must be one leaf.
        has_leaves = bool(jax.tree.leaves(params))
        return SkipNonfiniteState(inner.init(params), counts if has_leaves else jnp.zeros(0, jnp.int32))

    def update_fn(
        updates: optax.Updates,
        state: SkipNonfiniteState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, SkipNonfiniteState]:
        bad = {path: ~jnp.all(jnp.isfinite(g)) for path, g in _by_path(updates).items() if is_inexact(g)}
        zeros = {path: jnp.zeros_like(g) for path, g in _by_path(updates).items() if path in bad}
        finite = _where_bad(bad, zeros, updates, updates)
        new_updates, inner_state = inner.update(finite, state.inner_state, params, **extra_args)
        unmoved = {path: jnp.zeros_like(u) for path, u in _by_path(new_updates).items()}
        counts = state.skipped_steps
        if isinstance(counts, dict):
            skipped = {join(path): is_bad for path, is_bad in bad.items()}
            counts = {name: count + skipped.get(name, False) for name, count in counts.items()}
        return (
            _where_bad(bad, unmoved, new_updates, updates),
            SkipNonfiniteState(_where_bad(bad, _by_path(state.inner_state), inner_state, updates), counts),
        )

    # optax types all states alike.
    return optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyrefly: ignore[bad-argument-type]


def _by_path(tree: Any) -> dict[Path, Any]:
    return dict(zip(leaf_paths(tree), jax.tree.leaves(tree), strict=True))


def _where_bad(bad: dict[Path, jax.Array], instead: dict[Path, Any], tree: Any, updates: Any) -> Any:
    """`tree` with the leaves `instead` where they belong to a parameter whose gradient is bad."""
    leaves, treedef = jax.tree.flatten(tree)
    result = []
    for path, leaf, owner in zip(leaf_paths(tree), leaves, _owners(tree, updates), strict=True):
        # Some transformations change the structure of their state at the first step.
        if owner is not None and owner in bad and path in instead:
            leaf = jnp.where(bad[owner], instead[path], leaf)
        result.append(leaf)
    return jax.tree.unflatten(treedef, result)


def _owners(tree: Any, updates: Any) -> list[Path | None]:
    """For every leaf of `tree` the path of the parameter that it belongs to, `None` if to none.

    A subtree is a copy of the parameters if it has their leaves, by path. What is masked or `None` on one
    side need not be there on the other.
    """
    params = {path: jnp.shape(leaf) for path, leaf in _by_path(updates).items()}
    elsewhere = _Holes(hole_paths(updates))
    paths = leaf_paths(tree)
    leaves_below, holes_below = _below(paths), _below(hole_paths(tree))

    def is_copy(prefix: Path) -> bool:
        found = leaves_below[prefix]
        if found.isdisjoint(params) or not all(path in params or path in elsewhere for path in found):
            return False
        holes = _Holes(holes_below[prefix])
        return all(path in found or path in holes for path in params)

    copies = {prefix for prefix in leaves_below if is_copy(prefix)}
    result: list[Path | None] = []
    for path, leaf in zip(paths, jax.tree.leaves(tree), strict=True):
        start = next((n for n in range(len(path) + 1) if path[:n] in copies), None)
        owner = None if start is None else path[start:]
        result.append(owner if owner in params and _may_belong(leaf, owner, params[owner]) else None)
    return result


def _may_belong(leaf: Any, owner: Path, shape: tuple[int, ...]) -> bool:
    # Integer scalars are counts. If the parameters are a bare array, every path
    # ends with theirs, and the shape has to tell.
    if is_inexact(leaf):
        return bool(owner) or jnp.shape(leaf) == shape
    return jnp.shape(leaf) == shape != ()


def _below(paths: list[Path]) -> defaultdict[Path, set[Path]]:
    """For every prefix of the paths how they go on from there."""
    below: defaultdict[Path, set[Path]] = defaultdict(set)
    for path in paths:
        for n in range(len(path) + 1):
            below[path[:n]].add(path[n:])
    return below


class _Holes:
    """Contains every path that leads into a hole or past one."""

    def __init__(self, holes: Iterable[Path]) -> None:
        self._holes = set(holes)
        self._prefixes = {hole[:n] for hole in self._holes for n in range(len(hole))}

    def __contains__(self, path: Path) -> bool:
        return path in self._prefixes or any(path[:n] in self._holes for n in range(len(path) + 1))
