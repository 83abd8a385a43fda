"""The order of the layers in the forward pass, found by tracing it."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend
import numpy as np

from layca_optax._origin import NOWHERE, Origin, from_params, stacked, through, union
from layca_optax._paths import join, leaf_paths
from layca_optax._rules import Axes, Rotate, check_rule, vector_axes, vectors_shape

# A value of the traced function: where in the parameters it comes from, or None if the inputs are part of it.
_Value = Origin | None


def layer_depths(fn: Callable[..., Any], params: Any, *args: Any, rotate: Rotate = "layer") -> Any:
    """The position of every rotating leaf in the forward pass `fn(params, *args)`, counted from 0.

    A leaf's position is that of the first operation in which a value derived from it meets a value derived
    from `args`. So a cast of all weights up front changes nothing, a weight that is shared counts where it
    is used first, and leaves that are first met in one operation share a depth. The order of a dictionary of
    parameters is not that of the forward pass: `Dense_10` sorts before `Dense_2`.

    The function is traced, not run. Nested `jit`, custom derivatives, `jax.checkpoint`, `cond`, `while` and
    `scan` are followed. The blocks of a scanned stack come one after the other if `rotate` tells them apart:
    two kernels in three blocks have the depths 0 2 4 and 1 3 5.

    Args:
      fn: the forward pass or the loss; anything that `jax.make_jaxpr` traces.
      params: arrays or `jax.ShapeDtypeStruct`s.
      *args: the inputs of the network and whatever else `fn` takes; arrays or `jax.ShapeDtypeStruct`s.
      rotate: as in `layca`.

    Returns:
      A tree like `params`: an `int` for a leaf that is one vector, -1 for a leaf that does not rotate, an
      int32 array for a leaf with several vectors (shaped like the axes that enumerate them).

    Raises:
      ValueError: a rotating leaf never meets `args`; the message names it.

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
    axes = vector_axes(rotate, params)
    numbers, count = _numbered(axes)
    origins: list[_Value] = [
        NOWHERE
        if n is None
        else from_params(_at_indices(n, leaf, ax or ()), tuple(axis for axis, _ in ax or ()))
        for n, leaf, ax in zip(numbers, leaves, axes, strict=True)
    ]
    jaxpr = _open(jax.make_jaxpr(fn)(params, *args))
    walk = _Walk(count)
    walk.run(jaxpr, [*origins, *[None] * (len(jaxpr.invars) - len(leaves))])
    _refuse_unused(params, numbers, walk.met)
    # Positions without gaps.
    depth = np.unique(walk.met, return_inverse=True)[1].astype(np.int32)
    depths = [-1 if n is None else depth[n] if n.ndim else int(depth[n]) for n in numbers]
    return jax.tree.unflatten(treedef, depths)


def _numbered(axes: list[Axes | None]) -> tuple[list[np.ndarray | None], int]:
    """Numbers for all weight vectors of the tree, shaped like the axes that enumerate them; and how many."""
    numbers: list[np.ndarray | None] = []
    count = 0
    for ax in axes:
        if ax is None:
            numbers.append(None)
            continue
        shape = vectors_shape(ax)
        numbers.append(count + np.arange(math.prod(shape)).reshape(shape))
        count += math.prod(shape)
    return numbers, count


def _at_indices(numbers: np.ndarray, leaf: Any, axes: Axes) -> np.ndarray:
    """The number of the vector at every index of the enumerating axes."""
    for dim, (axis, pieces) in enumerate(axes):
        numbers = np.repeat(numbers, leaf.shape[axis] // pieces, axis=dim)
    return numbers


class _Walk:
    """Goes through the equations in their order and notes when each vector first meets the inputs."""

    def __init__(self, num_vectors: int) -> None:
        self.met = np.full(num_vectors, -1)
        self._clock = 0

    def run(self, jaxpr: Any, inputs: list[_Value]) -> list[_Value]:
        """The values of `jaxpr`'s results."""
        env: dict[Any, _Value] = dict(zip(jaxpr.invars, inputs, strict=True))

        def read(atom: Any) -> _Value:
            # Literals and closed-over constants come from nowhere.
            return NOWHERE if isinstance(atom, jax.extend.core.Literal) else env.get(atom, NOWHERE)

        for eqn in jaxpr.eqns:
            outputs = self._equation(eqn, [read(atom) for atom in eqn.invars])
            env.update(zip(eqn.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, eqn: Any, inputs: list[_Value]) -> list[_Value]:
        match eqn.primitive.name:
            case "scan":
                return self._scan(eqn, inputs)
            case "while":
                return self._while(eqn, inputs)
            case "cond":
                index, *operands = inputs
                branches = [self.run(_open(branch), operands) for branch in eqn.params["branches"]]
                return [self._joined([index, *outputs]) for outputs in zip(*branches, strict=True)]
            case "optimization_barrier":
                return inputs
        inner = _called(eqn)
        if inner is not None:
            inputs = [
                _refit(value, v, w) for value, v, w in zip(inputs, eqn.invars, inner.invars, strict=True)
            ]
            outputs = self.run(inner, inputs)
            return [
                _refit(value, v, w) for value, v, w in zip(outputs, inner.outvars, eqn.outvars, strict=True)
            ]
        pure = [value for value in inputs if value is not None]
        if len(pure) < len(inputs):
            self._meet(inputs)
            return [None] * len(eqn.outvars)
        return [*through(eqn, pure)]

    def _meet(self, values: Sequence[_Value]) -> None:
        numbers = [value.vectors() for value in values if value is not None]
        unmet = [n[self.met[n] < 0] for n in numbers]
        if any(n.size for n in unmet):
            self.met[np.concatenate(unmet)] = self._clock
            self._clock += 1

    def _joined(self, values: Sequence[_Value]) -> _Value:
        """What may be any of `values`."""
        pure = [value for value in values if value is not None]
        if len(pure) == len(values):
            return union(pure)
        self._meet(values)
        return None

    def _while(self, eqn: Any, inputs: list[_Value]) -> list[_Value]:
        cond, body = _open(eqn.params["cond_jaxpr"]), _open(eqn.params["body_jaxpr"])
        m, n = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
        cond_consts, body_consts, carry = inputs[:m], inputs[m : m + n], inputs[m + n :]
        while True:
            (go_on,) = self.run(cond, [*cond_consts, *carry])
            outputs = self.run(body, [*body_consts, *carry])
            before, carry = carry, [self._joined([c, o]) for c, o in zip(carry, outputs, strict=True)]
            if _same(before, carry):
                # How often the body ran is part of what comes out.
                return [self._joined([go_on, c]) for c in carry]

    def _scan(self, eqn: Any, inputs: list[_Value]) -> list[_Value]:
        body = _open(eqn.params["jaxpr"])
        # What is scanned over has one axis more outside than inside.
        num_xs = sum(_rank(v) != _rank(w) for v, w in zip(eqn.invars, body.invars, strict=True))
        num_carry = sum(_rank(v) == _rank(w) for v, w in zip(eqn.outvars, body.outvars, strict=True))
        first_x = len(inputs) - num_xs
        consts, carry, xs = (
            inputs[: first_x - num_carry],
            inputs[first_x - num_carry : first_x],
            inputs[first_x:],
        )
        length = eqn.params["length"]
        ys: list[list[_Value]] = []
        for i in reversed(range(length)) if eqn.params["reverse"] else range(length):
            slices = [x if x is None else x.part(0, i) for x in xs]
            outputs = self.run(body, [*consts, *carry, *slices])
            before, carry = carry, outputs[:num_carry]
            ys.append(outputs[num_carry:])
            if _same(before, carry) and not any(self._has_unmet_slices(x) for x in xs):
                break
        # Every iteration that was left out is like the last one.
        ys += ys[-1:] * (length - len(ys))
        if eqn.params["reverse"]:
            ys.reverse()
        return [*carry, *(self._stacked(pieces) for pieces in zip(*ys, strict=True))]

    def _has_unmet_slices(self, x: _Value) -> bool:
        return x is not None and 0 in x.dims and bool((self.met[x.vectors()] < 0).any())

    def _stacked(self, pieces: Sequence[_Value]) -> _Value:
        pure = [piece for piece in pieces if piece is not None]
        return stacked(pure) if len(pure) == len(pieces) else self._joined(pieces)


def _same(before: list[_Value], after: list[_Value]) -> bool:
    return all(
        (a is None) == (b is None) and (a is None or b is None or a.equals(b))
        for a, b in zip(before, after, strict=True)
    )


def _open(jaxpr: Any) -> Any:
    return jaxpr.jaxpr if hasattr(jaxpr, "jaxpr") else jaxpr


def _called(eqn: Any) -> Any | None:
    """The function that an equation calls on exactly its operands: `jit`, custom derivatives, `remat`, …"""
    for value in eqn.params.values():
        if isinstance(value, jax.extend.core.Jaxpr | jax.extend.core.ClosedJaxpr):
            inner = _open(value)
            if len(inner.invars) == len(eqn.invars) and len(inner.outvars) == len(eqn.outvars):
                return inner
    return None


def _refit(value: _Value, var: Any, other: Any) -> _Value:
    """Inside `shard_map` a value has another shape than outside: its axes are then not followed."""
    return value if value is None or _shape(var) == _shape(other) else value.merged()


def _shape(atom: Any) -> tuple[int, ...]:
    return tuple(getattr(atom.aval, "shape", ()))


def _rank(atom: Any) -> int:
    return len(_shape(atom))


def _refuse_unused(params: Any, numbers: list[np.ndarray | None], met: np.ndarray) -> None:
    unused = []
    for path, mine in zip(leaf_paths(params), numbers, strict=True):
        if mine is not None and (met[mine] < 0).any():
            missing = np.flatnonzero(met[mine] < 0)
            unused.append(repr(join(path)) + (f" (vectors {missing[:5].tolist()})" if mine.ndim else ""))
    if unused:
        raise ValueError(
            f"these parameters rotate, but fn never uses them together with its inputs: {', '.join(unused)}."
            " Pass the network's inputs as args, or leave out what is not used by a rule:"
            " rotate=lambda path, leaf: None for these paths."
        )
