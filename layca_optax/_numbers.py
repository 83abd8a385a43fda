"""A number a weight vector, of all leaves that rotate, in few arrays: `jit` takes time for each."""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Numbers(NamedTuple):
    """One number for every weight vector.

    Attributes:
      single: those of the leaves that are one vector, in the order of their sorted paths; `None` if there are
        no such leaves.
      several: by path, those of the other leaves, shaped like the axes that enumerate their vectors.
    """

    single: jax.Array | None
    several: dict[str, jax.Array]


def pack(by_path: dict[str, jax.Array]) -> Numbers:
    single = [by_path[path] for path in sorted(by_path) if by_path[path].ndim == 0]
    several = {path: x for path, x in by_path.items() if x.ndim > 0}
    if not single:
        return Numbers(None, several)
    widest = max((x.dtype for x in single), key=lambda dtype: dtype.itemsize)
    return Numbers(jnp.stack([x.astype(widest) for x in single]), several)


def unpack(numbers: Numbers | jax.Array, paths: Iterable[str]) -> dict[str, jax.Array]:
    """By path, of all leaves; mapped axes (`vmap`, `pmap`) stay in front."""
    if not isinstance(numbers, Numbers):  # of parameters without leaves
        return {}
    if numbers.single is None:
        return numbers.several
    single = sorted(set(paths) - numbers.several.keys())
    return numbers.several | {path: numbers.single[..., i] for i, path in enumerate(single)}
