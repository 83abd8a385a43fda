"""The order of the layers in the forward pass, found by tracing it.

Every weight vector has a number, and for every value on the way there is an array of the same shape that
says which vector each of its entries comes from. Operations move the numbers as they move the entries. When
a value meets the inputs, the vectors in it that have not met them before get the next depth.

Three layers, stacked as `w` of shape (3, 2, 2), are three vectors if `rotate` is "stacked_layer". A model
uses them backwards: `scan(lambda x, layer: (x @ layer, None), x, w[::-1])`. The arrays are

    w          [[[0 0] [0 0]]  [[1 1] [1 1]]  [[2 2] [2 2]]]
    w[::-1]    [[[2 2] [2 2]]  [[1 1] [1 1]]  [[0 0] [0 0]]]
    layer        [2 2] [2 2]                                    in the first iteration

The first `x @ layer` is where vector 2 meets the inputs: its depth is 0. The next iteration gives vector 1
the depth 1, the last one vector 0 the depth 2. So the depths of `w` are [2 1 0].

`_walk.py` goes through the operations, `_through.py` and `_indices.py` move the arrays of `_origin.py`, and
`_known.py` computes indices that are made of constants.
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
    """The position of every rotating leaf in the forward pass `fn(params, *args)`, counted from 0.

    A leaf's position is that of the first operation in which a value derived from it meets a value derived
    from `args`. So a cast of all weights up front changes nothing, a weight that is shared counts where it
    is used first, and leaves that are first met in one operation share a depth. The order of a dictionary of
    parameters is not that of the forward pass: `Dense_10` sorts before `Dense_2`.

    The function is traced, not run. Nested `jit`, custom derivatives, `jax.checkpoint`, `cond`, `while` and
    `scan` are followed. The blocks of a scanned stack come one after the other if `rotate` tells them apart:
    two kernels in three blocks have the depths 0 2 4 and 1 3 5. Blocks may be reversed, reshaped, normalised
    or taken by indices before they are used, if the indices are constants or made of the counters of loops.

    Random keys in `args` do not count as inputs, nor does what is drawn with them. Masks and noise that are
    passed as arrays do: where they are applied to all weights up front, there all weights meet `args`, in the
    order of the dictionary. Let the function close over them instead:
    `layer_depths(lambda params, x: fn(params, masks, x), params, x)`.

    Args:
      fn: the forward pass or the loss; anything that `jax.make_jaxpr` traces.
      params: arrays or `jax.ShapeDtypeStruct` leaves.
      *args: the inputs of the network and whatever else `fn` takes; arrays or `jax.ShapeDtypeStruct` leaves.
      rotate: as in `layca`.

    Returns:
      A tree like `params`: an `int` for a leaf that is one vector, -1 for a leaf that does not rotate, an
      int32 array for a leaf with several vectors (shaped like the axes that enumerate them).

    Raises:
      ValueError: a rotating leaf never meets `args`, for instance because its loop has length 0; or vectors
        are used in parts after an operation in which they cannot be told apart, such as a sort along the axis
        that enumerates them. The message names the leaf, and the operation.

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
    numbered = _numbered(leaves, vector_axes(rotate, params))
    paths = [join(path) for path in leaf_paths(params)]
    names = [
        path for path, mine in zip(paths, numbered, strict=True) if mine for _ in range(mine.numbers.size)
    ]
    weights = [Value(origin((), [mine.entries])) if mine else CONSTANT for mine in numbered]
    jaxpr = jax.make_jaxpr(fn)(params, *args)
    inputs = [CONSTANT if is_key(v) else INPUT for v in opened(jaxpr).invars[len(leaves) :]]
    walk = Walk(names)
    walk.run(jaxpr, [*weights, *inputs])
    _refuse_unused(paths, numbered, walk.met)
    # Positions without gaps.
    depth = np.unique(walk.met, return_inverse=True)[1].astype(np.int32)
    depths = [_as_int(depth[mine.numbers]) if mine else -1 for mine in numbered]
    return jax.tree.unflatten(treedef, depths)


class _Numbered(NamedTuple):
    """The numbers of a leaf's vectors, shaped like the axes that enumerate them, and of all its entries."""

    numbers: np.ndarray
    entries: np.ndarray


def _numbered(leaves: list[Any], axes: list[Axes | None]) -> list[_Numbered | None]:
    result: list[_Numbered | None] = []
    count = 0
    for leaf, enumerating in zip(leaves, axes, strict=True):
        if enumerating is None:
            result.append(None)
            continue
        shape = jnp.shape(leaf)
        pieces = vectors_shape(enumerating)
        entries = numbers = np.arange(count, count + math.prod(pieces), dtype=np.int32).reshape(pieces)
        for dim, (axis, number) in enumerate(enumerating):
            entries = np.repeat(entries, shape[axis] // number, axis=dim)
        entries = np.expand_dims(
            entries, [axis for axis in range(len(shape)) if axis not in dict(enumerating)]
        )
        result.append(_Numbered(numbers, np.broadcast_to(entries, shape)))
        count += numbers.size
    return result


def _as_int(depth: np.ndarray) -> np.ndarray | int:
    return depth if depth.ndim else int(depth)


def _refuse_unused(paths: list[str], numbered: list[_Numbered | None], met: np.ndarray) -> None:
    unused = []
    for path, mine in zip(paths, numbered, strict=True):
        if mine is not None and (met[mine.numbers] < 0).any():
            missing = np.flatnonzero(met[mine.numbers] < 0)
            several = mine.numbers.ndim > 0
            unused.append(repr(path) + (f" (vectors {missing[:5].tolist()})" if several else ""))
    if unused:
        raise ValueError(
            f"these parameters rotate, but fn never uses them together with its inputs: {', '.join(unused)}."
            " Pass the network's inputs as args, or leave out what is not used by a rule:"
            " rotate=lambda path, leaf: None for these paths."
        )
