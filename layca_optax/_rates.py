"""Learning rates: matches a number, a schedule or a tree prefix of these to the leaves, by path."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from layca_optax._paths import (
    Path,
    hole_paths,
    is_flax_variable,
    join,
    leaf_paths,
    nearest,
    refuse_twice,
    starts_with,
)
from layca_optax._rules import Axes, vectors_shape


def check_rates(learning_rate: Any) -> None:
    """Raises `ValueError` for a rate that is negative, NaN or infinite, or neither number nor schedule."""
    for path, rate in _by_path(learning_rate).items():
        _check_rate(path, rate)


def rates_for_leaves(
    learning_rate: optax.ScalarOrSchedule | Any,
    params: optax.Params,
    axes: list[Axes | None],
    wanted: list[bool],
    count: jax.Array,
) -> list[Any]:
    """Returns the rate of every leaf at step `count`: a scalar, or an array of one rate per vector.

    Leaves that are not `wanted` get `None`. Matching is by path, so the two trees may be made of different
    kinds of nodes.

    Raises:
      ValueError: a path of `learning_rate` leads to no leaf (unless that part of `params` is masked or
        `None`), no rate covers a wanted leaf, or a rate's shape is not that of the leaf's vectors.
    """
    rates, problems = match_rates(learning_rate, params, axes, wanted, count)
    if problems:
        raise ValueError(problems[0])
    return rates


def match_rates(
    learning_rate: optax.ScalarOrSchedule | Any,
    params: optax.Params,
    axes: list[Axes | None],
    wanted: list[bool],
    count: jax.Array,
) -> tuple[list[Any], list[str]]:
    """Does what `rates_for_leaves` does, but returns a list of errors; their leaves get the rate `None`."""
    paths, holes = leaf_paths(params), hole_paths(params)
    if not paths:
        return [], []
    rates = _by_path(learning_rate, [*paths, *holes])
    for path, rate in rates.items():
        _check_rate(path, rate)
    refuse_twice(map(join, rates), "learning_rate has two rates at {}")
    # In Haiku a key holds several components: {"transformer": 0.1} covers {"transformer/attention": …}.
    paths, holes = [*map(_components, paths)], [*map(_components, holes)]
    rates = {_components(path): rate for path, rate in rates.items()}
    prefixes = [next((path[:n] for n in range(len(path) + 1) if path[:n] in rates), None) for path in paths]
    problems = []
    for path in rates:
        in_hole = any(starts_with(hole, path) or starts_with(path, hole) for hole in holes)
        if path not in prefixes and not in_hole:
            problems.append(
                f"learning_rate has a rate at {join(path)!r}, but the parameters have nothing there;"
                f" the nearest parameters are {nearest(path, paths)}"
            )
    used = {prefix for prefix, want in zip(prefixes, wanted, strict=True) if want and prefix is not None}
    values = {path: rates[path](count) if callable(rates[path]) else rates[path] for path in used}
    result: list[Any] = []
    for path, prefix, ax, want in zip(paths, prefixes, axes, wanted, strict=True):
        result.append(None)
        if not want:
            continue
        if prefix is None:
            problems.append(
                f"no learning rate covers the parameter {join(path)!r}; the nearest paths that have one"
                f" are {nearest(path, rates)}"
            )
            continue
        rate = jnp.asarray(values[prefix])
        if not jnp.issubdtype(rate.dtype, jnp.inexact):
            # An unsigned integer cannot be negated.
            rate = rate.astype(jnp.result_type(float))
        vectors = vectors_shape(ax or ())
        if rate.shape in ((), vectors):
            result[-1] = rate
        else:
            expected = f"() or {vectors}, one rate per vector" if vectors else "()"
            problems.append(
                f"the learning rate of {join(path)!r} has shape {rate.shape}; its shape must be {expected}"
            )
    return result, problems


def _components(path: Path) -> Path:
    return tuple(part for key in path for part in key.split("/"))


def _by_path(learning_rate: Any, known: Sequence[Path] = (), at: Path = ()) -> dict[Path, Any]:
    """Returns numbers and schedules by path.

    A callable node may be a schedule that is itself a tree (`jax.tree_util.Partial`, a module with
    `__call__`), or a tree of rates shaped like the parameters (an Equinox model). It is the latter if all
    of its leaves are on paths that are `known`.
    """
    # A Flax variable is callable, whatever it holds.
    may_be_schedule = lambda node: callable(node) and not is_flax_variable(node)
    if may_be_schedule(learning_rate) and not _holds_rates(learning_rate, known, at):
        return {at: learning_rate}
    stop = lambda node: may_be_schedule(node) and node is not learning_rate
    result: dict[Path, Any] = {}
    nodes = jax.tree.leaves(learning_rate, is_leaf=stop)
    for path, node in zip(leaf_paths(learning_rate, is_leaf=stop), nodes, strict=True):
        result |= _by_path(node, known, at + path) if may_be_schedule(node) else {at + path: node}
    return result


def _holds_rates(node: Any, known: Sequence[Path], at: Path) -> bool:
    if isinstance(node, jax.tree_util.Partial):
        return False
    below = {path[: len(at) + 1] for path in known if len(path) > len(at)}
    inner = [at + path[:1] for path in leaf_paths(node) if path]
    return bool(inner) and below.issuperset(inner)


def _check_rate(path: Path, rate: Any) -> None:
    where = f"learning_rate at {join(path)!r}" if path else "learning_rate"
    if callable(rate) or isinstance(rate, jax.core.Tracer):
        return
    if isinstance(rate, jax.Array) and not rate.is_fully_addressable:
        return
    try:
        value = np.asarray(rate).astype(np.float64, casting="same_kind")
    except (TypeError, ValueError):
        raise ValueError(
            f"{where} is {rate!r}; it must be a number, an array or a schedule (count -> rate)"
        ) from None
    if not np.all(np.isfinite(value) & (value >= 0)):
        raise ValueError(f"{where} is {rate!r}; a learning rate must be finite and not negative")
