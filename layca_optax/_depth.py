"""Finds the order of the layers in the forward pass, by tracing it.

Every weight vector has an id. For every value of the traced function there is an array of the same shape
with the ids of the vectors that its entries come from; operations move ids as they move entries. When a value
meets the network's inputs, the vectors in it that have not met them before get the next depth.

For example, three layers stacked as `w` of shape (3, 2, 2) are three vectors if `rotate="stacked_layer"`. A
model uses them in reverse: `scan(lambda x, layer: (x @ layer, None), x, w[::-1])`. The arrays of ids are

    w          [[[0 0] [0 0]]  [[1 1] [1 1]]  [[2 2] [2 2]]]
    w[::-1]    [[[2 2] [2 2]]  [[1 1] [1 1]]  [[0 0] [0 0]]]
    layer        [2 2] [2 2]                                    in the first iteration

In the first `x @ layer`, vector 2 meets the inputs and gets depth 0. In the next iteration vector 1 gets
depth 1, and in the last vector 0 gets depth 2. So the depths of `w` are [2 1 0].

`_walk.py` goes through the operations, `_through.py` and `_indices.py` move the ids that `_origin.py` stores,
and `_known.py` computes indices that are made of constants.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from layca_optax._origin import origin
from layca_optax._paths import join, leaf_paths
from layca_optax._rules import Axes, Rotate, check_rule, vector_axes, vectors_shape
from layca_optax._walk import CONSTANT, INPUT, Value, Walk, is_key, opened


def layer_depths(fn: Callable[..., Any], params: Any, *args: Any, rotate: Rotate = "layer") -> Any:
    """Finds the position of every rotating leaf in the forward pass `fn(params, *args)`, counted from 0.

    A leaf's position is that of the first operation that combines a value derived from the leaf with a value
    derived from `args`. So casting all weights up front changes nothing, a shared weight counts where it is
    used first, and leaves that meet `args` in the same operation share a depth. The order of a dictionary
    would not do: `Dense_10` sorts before `Dense_2`.

    The function is traced, not run. Nested `jit`, custom derivatives, `jax.checkpoint`, `cond`, `while` and
    `scan` are followed. If `rotate` separates the blocks of a scanned stack, they are ordered block by block:
    two kernels in three blocks have the depths 0 2 4 and 1 3 5. Blocks may be reversed, reshaped, normalised
    or indexed before they are used, as long as the indices come from constants and loop counters.

    Random keys in `args`, and numbers drawn with them, do not count as inputs. Masks and noise passed as
    arrays do: if they are applied to all weights up front, all weights meet `args` there, in the order of the
    dictionary. Let the function close over them instead:
    `layer_depths(lambda params, x: fn(params, masks, x), params, x)`.

    Args:
      fn: the forward pass or the loss; anything that `jax.make_jaxpr` traces.
      params: arrays or `jax.ShapeDtypeStruct` leaves.
      *args: the network's inputs and all other arguments of `fn`; arrays or `jax.ShapeDtypeStruct` leaves.
      rotate: as in `layca`.

    Returns:
      A tree like `params`: an `int` for a leaf that is one vector, -1 for a leaf that does not rotate, an
      int32 array for a leaf with several vectors (shaped like the axes that enumerate them).

    Raises:
      ValueError: a rotating leaf never meets `args`, for instance because its loop has length 0; or an
        operation mixes vectors so that they cannot be told apart, such as a sort along the axis that
        enumerates them, and only a part of its result is used. The message names leaf and operation.

    Example:
      >>> import jax.numpy as jnp
      >>> from layca_optax import layer_depths
      >>> def model(params, x):
      ...   for name in ["stem", "block", "head"]:
      ...     x = x @ params[name]
      ...   return x
      >>> params = {name: jnp.ones((4, 4)) for name in ["block", "head", "stem"]}
      >>> params["scale"] = jnp.ones(4)  # one axis: does not rotate
      >>> layer_depths(model, params, jnp.ones((1, 4)))
      {'block': 1, 'head': 2, 'scale': -1, 'stem': 0}

    References:
      Carbonnelle and De Vleeschouwer, 2018, Section 5.1: the layers that Equation (1) numbers.
    """
    check_rule(rotate)
    leaves, treedef = jax.tree.flatten(params)
    vector_ids = _assign_ids(leaves, vector_axes(rotate, params))
    paths = [join(path) for path in leaf_paths(params)]
    names = [path for path, mine in zip(paths, vector_ids, strict=True) if mine for _ in mine.vectors.flat]
    weights = [Value(origin((), [mine.entries])) if mine else CONSTANT for mine in vector_ids]
    jaxpr = jax.make_jaxpr(fn)(params, *args)
    inputs = [CONSTANT if is_key(v) else INPUT for v in opened(jaxpr).invars[len(leaves) :]]
    walk = Walk(names)
    walk.run(jaxpr, [*weights, *inputs])
    _refuse_unused(paths, vector_ids, walk.met)
    # `met` may have gaps; depths have none.
    depth = np.unique(walk.met, return_inverse=True)[1].astype(np.int32)
    depths = [_as_int(depth[mine.vectors]) if mine else -1 for mine in vector_ids]
    return jax.tree.unflatten(treedef, depths)


class _VectorIds(NamedTuple):
    """The ids of a leaf's vectors, shaped like the axes that enumerate them, and the ids of its entries."""

    vectors: np.ndarray
    entries: np.ndarray


def _assign_ids(leaves: list[Any], axes: list[Axes | None]) -> list[_VectorIds | None]:
    result: list[_VectorIds | None] = []
    count = 0
    for leaf, enumerating in zip(leaves, axes, strict=True):
        if enumerating is None:
            result.append(None)
            continue
        shape = jnp.shape(leaf)
        pieces = vectors_shape(enumerating)
        entries = vectors = np.arange(count, count + math.prod(pieces), dtype=np.int32).reshape(pieces)
        for dim, (axis, number) in enumerate(enumerating):
            entries = np.repeat(entries, shape[axis] // number, axis=dim)
        entries = np.expand_dims(
            entries, [axis for axis in range(len(shape)) if axis not in dict(enumerating)]
        )
        result.append(_VectorIds(vectors, np.broadcast_to(entries, shape)))
        count += vectors.size
    return result


def _as_int(depth: np.ndarray) -> np.ndarray | int:
    return depth if depth.ndim else int(depth)


def _refuse_unused(paths: list[str], vector_ids: list[_VectorIds | None], met: np.ndarray) -> None:
    unused = []
    for path, mine in zip(paths, vector_ids, strict=True):
        if mine is not None and (met[mine.vectors] < 0).any():
            missing = np.flatnonzero(met[mine.vectors] < 0)
            several = mine.vectors.ndim > 0
            unused.append(repr(path) + (f" (vectors {missing[:5].tolist()})" if several else ""))
    if unused:
        raise ValueError(
            f"these parameters rotate, but fn never uses them together with its inputs: {', '.join(unused)}."
            " Pass the network's inputs as args. If they are really unused, exclude them with a rule:"
            " rotate=lambda path, leaf: None for these paths."
        )
