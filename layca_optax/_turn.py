"""The arithmetic of a step: turns on the sphere, accurate at every scale.

All functions compute in at least float32. Only elementwise operations, sums over axes and copies along a new
axis are used: those work under every sharding, explicit meshes included.
"""

from collections import defaultdict
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from layca_optax._rules import Axes
from layca_optax._vectors import (
    after,
    compute_dtype,
    expand_inner,
    scale_to_unit_size,
    sum_vectors_together,
    waits_for,
)

_Sums = tuple[jax.Array, jax.Array, jax.Array]
_Known = tuple[_Sums, jax.Array, jax.Array, jax.Array]
_Run = tuple[slice, jax.Array, jax.Array, Axes]


class _Leaf(NamedTuple):
    w: jax.Array
    s: jax.Array
    rate: jax.Array
    n0: jax.Array
    axes: Axes


class _Direction(NamedTuple):
    """`t = step_scale * s - lean * u - rest * u` where `u = w / n0`, and the squares that make it a unit.

    `lean` removes the part of the step along the weights and `rest` what rounding left of it. One number a
    vector each; `tt_vv` is NaN where there is no direction.
    """

    step_scale: jax.Array
    lean: jax.Array
    rest: jax.Array
    uu_vv: jax.Array
    tt_vv: jax.Array


class _Turn(NamedTuple):
    """What makes `n0 v/||v|| - w` of w and t: `along * w + across * t`, with `u = inverse * w` in t."""

    step_scale: jax.Array
    lean: jax.Array
    rest: jax.Array
    inverse: jax.Array
    along: jax.Array
    across: jax.Array


# Compiled, because outside jit `lax.cond` would be compiled anew at every call.
@partial(jax.jit, static_argnames=("axes", "tangent", "retraction"))
def turn(
    weights: list[jax.Array],
    steps: list[jax.Array],
    rates: list[jax.Array],
    initial_norms: list[jax.Array],
    *,
    axes: tuple[Axes, ...],
    tangent: bool,
    retraction: str,
) -> list[jax.Array]:
    """The updates `w' - w` of all leaves; zero for vectors that have no direction to turn in.

    Three sums and one linear combination suffice for almost every step. Where squares would overflow or
    vanish, or cancellation would cost digits (a step nearly parallel to the weights, or no step at all), a
    second, slower way to the same numbers is taken. That is one choice for all leaves: a GPU asks the host
    for every choice.

    What is one number a vector is computed for many leaves together, in arrays whose axis 0 runs over the
    leaves of a block: XLA compiles a kernel for each, and for a thousand leaves that would take a minute.
    """
    if not weights:
        return []
    leaves = [_Leaf(*leaf) for leaf in zip(weights, steps, rates, initial_norms, axes, strict=True)]
    sums: list[_Sums] = []
    for leaf in leaves:
        seen = [ss for ss, _, _ in waits_for(leaf.w, sums)]
        sums.append(_sums(leaf.w, after(leaf.s, *seen), leaf.axes))
    blocks = _blocks(leaves, sums)
    known = [_known([leaves[i] for i in b], _stack([sums[i] for i in b]), retraction) for b in blocks]
    fast = [_direction(block_known, tangent) for block_known in known]
    turns = lambda directions: [_turn(*pair) for pair in zip(known, directions, strict=True)]
    careful = lambda: [
        _careful_direction([leaves[i] for i in block], block_known, *block_fast, tangent)
        for block, block_known, block_fast in zip(blocks, known, fast, strict=True)
    ]
    all_easy = jnp.all(jnp.stack([jnp.all(easy) for easy, _ in fast]))
    turned = jax.lax.cond(
        all_easy, lambda: turns([direction for _, direction in fast]), lambda: turns(careful())
    )
    updates = {
        i: _update(leaves[i].w, leaves[i].s, jax.tree.map(itemgetter(row), block_turn), leaves[i].axes)
        for block, block_turn in zip(blocks, turned, strict=True)
        for row, i in enumerate(block)
    }
    return [updates[i] for i in range(len(leaves))]


def _blocks(leaves: list[_Leaf], sums: list[_Sums]) -> list[list[int]]:
    """The leaves' positions: together small ones that are one vector each, arrays of one kind side by side.

    Where a leaf is several vectors, one of its axes may be sharded, and in a common array that would spread
    to the other leaves.
    """
    together = defaultdict(list)
    for i, (leaf, (ss, _, _)) in enumerate(zip(leaves, sums, strict=True)):
        alone = i if leaf.axes or leaf.w.size > 2**16 else None
        together[alone, jax.typeof(ss), jax.typeof(leaf.n0)].append(i)
    # A kernel that gathers its numbers from more buffers than this compiles slowly itself.
    most = 64
    blocks = []
    for same in together.values():
        same.sort(key=lambda i: str(_kind(leaves[i])))
        blocks += [same[i : i + most] for i in range(0, len(same), most)]
    return blocks


def _kind(leaf: _Leaf) -> tuple[Any, ...]:
    return jax.typeof(leaf.w), jax.typeof(leaf.s), leaf.axes


def _stack(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *xs: jnp.stack(xs), *trees)


def _known(leaves: list[_Leaf], sums: _Sums, retraction: str) -> _Known:
    dtype = sums[0].dtype
    n0 = _stack([leaf.n0.astype(dtype) for leaf in leaves])
    # A rate for each vector, sharded as they are.
    rate = _stack([jnp.asarray(leaf.rate, dtype) + jnp.zeros_like(leaf.n0) for leaf in leaves])
    return sums, n0, *_combination(rate, retraction)


def _combination(rate: jax.Array, retraction: str) -> tuple[jax.Array, jax.Array]:
    """`p` and `q` of `v = p w/||w|| + q t/||t||`. A negative rate turns away from the step."""
    if retraction == "geodesic":
        return jnp.cos(rate), jnp.sin(rate)
    # Only the direction of (1, rate) matters; neither part may overflow when squared.
    larger = jnp.maximum(1, jnp.abs(rate))
    return 1 / larger, rate / larger


# The functions of one leaf are compiled, so that leaves of equal shape are traced once.
@partial(jax.jit, static_argnums=2)
def _sums(w: jax.Array, s: jax.Array, axes: Axes) -> _Sums:
    dtype = compute_dtype(w)
    w, s = w.astype(dtype), s.astype(dtype)
    ss, sw, ww = sum_vectors_together((s * s, s * w, w * w), axes)
    return ss, sw, ww


def _direction(known: _Known, tangent: bool) -> tuple[jax.Array, _Direction]:
    """What follows from the sums, and whether it is right: neither squares nor differences lost digits."""
    (ss, sw, ww), n0, p, q = known
    one, zero = jnp.ones_like(ss), jnp.zeros_like(ss)
    low, high = _range(ss.dtype)
    smallest, largest = jnp.minimum(jnp.minimum(ss, ww), n0), jnp.maximum(jnp.maximum(ss, ww), n0)
    easy = (smallest > low) & (largest < high)
    uu, vv = ww / (n0 * n0), p * p + q * q
    if tangent:
        lean = sw / ww
        tt = ss - lean * sw
        easy = easy & (tt > ss / 4)
    else:
        lean, tt = zero, ss
        vv = vv + 2 * p * q * (sw / jnp.sqrt(ss * ww))
        easy = easy & (vv > 0.25)
    return easy, _Direction(one, lean * n0, zero, uu * vv, tt * vv)


def _turn(known: _Known, direction: _Direction) -> _Turn:
    _, n0, p, q = known
    step_scale, lean, rest, uu_vv, tt_vv = direction
    return _Turn(step_scale, lean, rest, 1 / n0, p / jnp.sqrt(uu_vv) - 1, q * n0 / jnp.sqrt(tt_vv))


def _careful_direction(
    leaves: list[_Leaf], known: _Known, easy: jax.Array, easy_direction: _Direction, tangent: bool
) -> _Direction:
    """As `_direction`, from vectors scaled so that squares are right, projected twice, the result measured.

    Vectors for which that was not necessary keep what they have: their updates do not depend on the others.
    """
    (ss, _, _), n0, p, q = known
    low, _ = _range(ss.dtype)
    info = jnp.finfo(ss.dtype)
    far = float(2.0 ** (info.maxexp * 5 // 6))
    one, zero, inverse = jnp.ones_like(ss), jnp.zeros_like(ss), 1 / n0
    # Squares that vanish or overflow tell only that a step is small or large. Then its size is known.
    unit = scale_to_unit_size(jnp.sqrt(ss))
    first_scale = jnp.where(ss < info.tiny, far, jnp.where(ss <= info.max, unit, 1 / far))
    runs = _runs(leaves)
    ss, su, uu = _combined_sums(runs, inverse, first_scale, one, zero)
    step_scale = jnp.maximum(first_scale * scale_to_unit_size(jnp.sqrt(ss)), info.tiny)
    more = step_scale / first_scale
    ss, su = ss * more * more, su * more
    combined_sums = partial(_combined_sums, runs, inverse, step_scale)
    lean, rest, tt, vv = zero, zero, ss, p * p + q * q
    if tangent:
        lean = su / uu
        tt, tu, _ = combined_sums(one, -lean)
        rest = tu / uu
        tt = tt - rest * tu
    else:
        vv, _, _ = combined_sums(q / jnp.sqrt(ss), p / jnp.sqrt(uu))
    # Rounding alone can make up to this part of a square; updates may be twice as long as these norms.
    least, most = (8 * jnp.finfo(ss.dtype).eps) ** 2, jnp.finfo(ss.dtype).max / 4
    exists = (tt > least * ss) & (vv > least) & (uu > low) & (jnp.maximum(1, jnp.sqrt(uu)) * n0 < most)
    careful = _Direction(step_scale, lean, rest, uu * vv, jnp.where(exists, tt * vv, jnp.nan))
    return jax.tree.map(partial(jnp.where, easy), easy_direction, careful)


def _runs(leaves: list[_Leaf]) -> list[_Run]:
    """Arrays of one kind in a block copied into one, so that they compile once, and which rows they are."""
    runs, start = [], 0
    for _, group in groupby(leaves, _kind):
        same = list(group)
        axes = (0, *(axis + 1 for axis in same[0].axes))
        runs.append((slice(start, start + len(same)), *_stack([(leaf.w, leaf.s) for leaf in same]), axes))
        start += len(same)
    return runs


def _combined_sums(
    runs: list[_Run], inverse: jax.Array, step_scale: jax.Array, a: jax.Array, b: jax.Array
) -> _Sums:
    """Of a block, the sums of `u = inverse * w` and `a * (step_scale * s) + b * u`."""
    parts = [
        _sums_of_run(w, s, axes, *(x[rows] for x in (inverse, step_scale, a, b))) for rows, w, s, axes in runs
    ]
    return jax.tree.map(lambda *xs: jnp.concatenate(xs), *parts)


@partial(jax.jit, static_argnums=2)
def _sums_of_run(w: jax.Array, s: jax.Array, axes: Axes, *numbers: jax.Array) -> _Sums:
    dtype = compute_dtype(w)
    inverse, step_scale, a, b = (expand_inner(x, w.ndim, axes) for x in numbers)
    u = w.astype(dtype) * inverse
    return _sums(u, a * (s.astype(dtype) * step_scale) + b * u, axes)


@partial(jax.jit, static_argnums=3)
def _update(w: jax.Array, s: jax.Array, numbers: _Turn, axes: Axes) -> jax.Array:
    dtype = compute_dtype(w)
    step_scale, lean, rest, inverse, along, across = (expand_inner(x, w.ndim, axes) for x in numbers)
    exact, s = w.astype(dtype), s.astype(dtype)
    u = exact * inverse
    t = (step_scale * s - lean * u) - rest * u
    update = jnp.where(jnp.isfinite(across), along * exact + across * t, 0)
    # float16: an update may be twice as large as any weight. Where norms have the same range, they bound it.
    if jnp.finfo(w.dtype).maxexp < jnp.finfo(dtype).maxexp:
        largest = jnp.finfo(w.dtype).max
        update = jnp.clip(update, -largest, largest)
    return update.astype(w.dtype)


def _range(dtype: jnp.dtype) -> tuple[np.floating, np.floating]:
    """Sums of squares between these are right, whatever the squares of single entries are."""
    return np.sqrt(jnp.finfo(dtype).tiny), np.sqrt(jnp.finfo(dtype).max)
