"""Norms of weight vectors."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from layca_optax._floats import at_least_float32, moderating_scale
from layca_optax._rules import Axes, Rotate, as_vectors, rotating_leaves, rule_without
from layca_optax._vectors import inner_axes, per_vector


@partial(jax.jit, static_argnums=1)
def vector_norms(leaf: jax.Array, axes: Axes) -> jax.Array:
    """Computes the norm of every vector, in at least float32, without overflow or underflow."""
    x, plain = as_vectors(leaf.astype(at_least_float32(leaf.dtype)), axes)
    inner = inner_axes(x, plain)
    scale = moderating_scale(jnp.max(jnp.abs(x), axis=inner, initial=0))
    return jnp.sqrt(jnp.sum((x * per_vector(scale, x, plain)) ** 2, axis=inner)) / scale


def norms_of_leaves(params: Any, axes: list[Axes | None]) -> dict[str, jax.Array]:
    """Computes the norms of all vectors that rotate, by the path of their leaf.

    Raises:
      ValueError: a leaf is a `jax.ShapeDtypeStruct`, which has no values.
    """
    leaves = jax.tree.leaves(params)
    rotating = rotating_leaves(params, axes)
    for name, i, _ in rotating:
        if isinstance(leaves[i], jax.ShapeDtypeStruct):
            raise ValueError(
                f"{name!r} is a ShapeDtypeStruct, but init needs values to take their norms."
                " For the shapes of the state use jax.eval_shape(optimizer.init, params)."
            )
    return {name: vector_norms(jnp.asarray(leaves[i]), ax) for name, i, ax in rotating}


def refuse_zero_vectors(norms: dict[str, jax.Array], rotate: Rotate) -> None:
    """Raises `ValueError` if norms can be seen to be zero; the message names all of them."""
    zeros = {name: norm for name, norm in norms.items() if visible_zeros(norm)}
    if not zeros:
        return
    leaves = ", ".join(_zero_vectors(name, norm) for name, norm in zeros.items())
    padding = (
        " If they are padding, initialise them like the others and mask them in the model, or rotate the leaf"
        " as one vector."
    )
    raise ValueError(
        f"these rotate, but start at zero, and a zero vector has no direction to turn from: {leaves}."
        f" Initialise them to something else, or let them train without rotating:"
        f" {rule_without(rotate, [*zeros])}.{padding if any(norm.ndim for norm in zeros.values()) else ''}"
    )


def refuse_lost_norms(name: str, norm: jax.Array, weights: jax.Array, axes: Axes) -> None:
    """Raises `ValueError` if an initial norm is zero although the weights are not, as far as can be seen."""
    if not visible_zeros(norm) or isinstance(weights, jax.core.Tracer):
        return
    now = vector_norms(jnp.asarray(weights), axes)
    if can_be_seen(now) and np.any((np.asarray(norm) == 0) & (np.asarray(now) > 0)):
        raise ValueError(
            f"the state says that {name!r} had the norm 0, but the weights are not zero: it could never turn."
            " Reset a state with optimizer.init(params), not with zeros; rebase(opt_state, params) takes the"
            " norms of the weights as they are"
        )


def visible_zeros(norms: jax.Array) -> int:
    """Counts the norms that are zero, as far as their values can be seen."""
    return int(np.sum(np.asarray(norms) == 0)) if can_be_seen(norms) else 0


def can_be_seen(x: jax.Array) -> bool:
    """Tells whether the values are known here: not inside `jit`, and not on other hosts."""
    if isinstance(x, jax.core.Tracer):
        return False
    return not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated


def _zero_vectors(name: str, norms: jax.Array) -> str:
    if norms.ndim == 0:
        return repr(name)
    indices = [tuple(map(int, index)) for index in np.argwhere(np.asarray(norms) == 0)]
    shown = ", ".join(str(index[0] if len(index) == 1 else index) for index in indices[:5])
    more = ", …" if len(indices) > 5 else ""
    return f"{len(indices):,} of the {norms.size:,} vectors of {name!r} (those at {shown}{more})"
