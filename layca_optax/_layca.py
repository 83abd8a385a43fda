"""Layca: turns every layer's weight vector by an angle that the learning rate sets."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from layca_optax._floats import at_least_float32
from layca_optax._norms import norms_of_leaves, refuse_lost_norms, refuse_zero_vectors
from layca_optax._paths import check_same_leaves
from layca_optax._rates import check_rates, rates_for_leaves
from layca_optax._rules import (
    Axes,
    Rotate,
    check_rule,
    is_inexact,
    refuse_flat,
    rotating_leaves,
    vector_axes,
    vectors_shape,
)
from layca_optax._small_leaves import for_each_leaf
from layca_optax._state import by_path, check_layers
from layca_optax._turn import RETRACTIONS, turn


class LaycaState(NamedTuple):
    """State of `layca`.

    Attributes:
      count: steps taken, an int32 scalar; schedules are called with it.
      initial_norm: a dictionary from the path of every rotating leaf (`"layers/0/kernel"`) to the norms that
        its vectors had at `init`, in at least float32, shaped like the axes that enumerate them (a scalar
        for a leaf that is one vector). It never changes. A scalar 0 if the parameters have no leaves.
      others: state of the transformation `others`; `optax.EmptyState()` without one.
    """

    count: jax.Array
    initial_norm: dict[str, jax.Array] | jax.Array
    others: optax.OptState


def layca(
    learning_rate: optax.ScalarOrSchedule | Any = 3**-3,
    *,
    rotate: Rotate = "layer",
    others: optax.GradientTransformation | None = None,
    tangent: bool = True,
    retraction: Literal["projection", "geodesic"] = "projection",
    flip_sign: bool = True,
) -> optax.GradientTransformationExtraArgs:
    r"""Turns every layer's weight vector by `arctan(learning_rate)` radians in the direction of the update.

    Put it last in a chain, in place of `optax.scale_by_learning_rate`. It takes a direction that has *not*
    been multiplied by a learning rate and returns the update to add to the parameters:

    * `layca(lr)` alone is Layca on SGD;
    * `optax.chain(optax.scale_by_adam(), layca(lr))` is Layca on Adam;
    * `optax.chain(optax.adam(1.0), layca(lr, flip_sign=False))` is the same, after a complete optimizer.

    Mind the sign: a complete optimizer (`optax.adam`, `optax.sgd`) has already flipped the gradient's sign.
    After one, `flip_sign=True` climbs the loss; after `optax.scale_by_*`, `flip_sign=False` does. To find
    out, call `check_descent(optimizer, params, gradients)` once; it raises an error if the sign is wrong.

    For a weight vector :math:`w` of initial norm :math:`n_0`, a proposed step :math:`s` (the incoming
    update, its sign flipped if `flip_sign`) and learning rate :math:`\rho`

    .. math::
      t = s - \frac{s \cdot w}{w \cdot w} w, \qquad
      v = \frac{w}{\|w\|} + \rho \frac{t}{\|t\|}, \qquad
      w' = n_0 \frac{v}{\|v\|}

    and the update is :math:`w' - w`. The norm stays :math:`n_0`, the angle between :math:`w` and :math:`w'`
    is :math:`\arctan\rho`, and only the direction of :math:`s` matters: gradients :math:`g` and
    :math:`10^{30} g` give the same update.

    A vector without a direction to turn in gets an update of exactly zero. This happens if the step is zero,
    parallel to the weights, or not finite in some entry, if the weights are not finite, or if the initial
    norm is zero (or above a quarter of the largest number, where an update could overflow).

    Norms are taken at `init`, and every step restores them. So load weights before you call `init`, or pass
    the state to `rebase`. To reset a state, call `init` again; a state of zeros is refused where its values
    can be seen, outside `jit`.

    Under `jit` a sharded leaf turns as a whole, whatever the mesh. Inside `jax.shard_map` each device sees a
    piece of the leaf and would turn that piece by the full angle, so call `layca` outside, on the results.
    Do not wrap it in `optax.flatten`, which joins all leaves into one array.

    Arithmetic is in at least float32; the update has the parameter's dtype. On CPUs XLA treats numbers below
    the smallest normal one (1.2e-38 in float32 and bfloat16, 2.2e-308 in float64) as zero: a step whose
    entries are all that small turns nothing, and in a larger step such entries count as zero.

    In bfloat16 the norm stays within about 1e-3 of the initial one, but an entry that should change by less
    than 1/512 to 1/256 of its size does not change at all. That is 5 % of the entries at a learning rate of
    1/27 and 78 % at 1e-3, where a hundred steps in one direction turn the layer by 0.07 radians instead of
    0.1. For rates below 0.01 keep the parameters in float32 and cast them inside the loss:
    `loss = lambda params, x: model(optax.tree.cast(params, jnp.bfloat16), x)`.

    Args:
      learning_rate: the tangent of each step's angle in radians (`retraction="projection"`) or the angle
        itself (`"geodesic"`). A number, a (traced) scalar, a schedule `count -> rate`, or a tree prefix of
        the parameters with any of these at its leaves, or with arrays of one rate per vector of a leaf.
        Prefixes are matched by path. Begin with 3^-3 on SGD, RMSProp and Adagrad. On Adam and momentum begin
        with 3^-4, and for tens of thousands of steps with 3^-5, as the paper does on Adam.
      rotate: which leaves rotate, and as how many vectors. `"layer"`: every floating leaf with two or more
        axes is one vector. `"stacked_layer"`: axis 0 enumerates layers, each of which must have two or more
        axes. `"neuron"`: the last axis of a leaf with two or more axes enumerates vectors. Under these
        names, leaves whose last path component is `bias`, `scale` or `offset` do not rotate, nor those whose
        vectors would have a single entry. Alternatively a function `(path, leaf) -> axes`, where `path` is a
        string such as `"layers/0/kernel"`. It returns the tuple of axes that enumerate the leaf's vectors:
        `()` for one vector, `None` if the leaf does not rotate. An entry `(axis, pieces)` cuts an axis into
        equal contiguous pieces, each of them a vector: `((1, 3),)` for queries, keys and values that share
        one kernel of shape (C, 3C).
      others: an optax transformation for the floating and complex leaves that do not rotate (biases, norm
        scales). It receives the same incoming updates; its output is added unchanged. By default these leaves
        take the plain step, their learning rate times the direction. After `optax.scale_by_adam()` give
        `optax.scale_by_learning_rate(lr)`, since `optax.adam(lr)` would be Adam on Adam.
        `optax.set_to_zero()` keeps these leaves fixed.
      tangent: whether to project the step onto the space orthogonal to the weights. Without it
        (:math:`t = s`) the learning rate is not the angle.
      retraction: `"projection"` as above, or `"geodesic"`:
        :math:`v = \cos\rho\, w/\|w\| + \sin\rho\, t/\|t\|`, a turn by exactly :math:`\rho` radians.
      flip_sign: whether the incoming updates point up the gradient, as gradients do.

    Returns:
      An `optax.GradientTransformationExtraArgs` whose state is a `LaycaState`. Its `update` needs `params`.

    Raises:
      ValueError: at once, for an unknown `rotate` or `retraction`, for learning rates that are negative,
        NaN or infinite, and for `others` that are no optax transformation. At `init`, for a rotating vector
        that is zero (if its value can be seen) or has one entry, a complex or 8-bit leaf that would rotate,
        shapes without values, learning rates that do not match the parameters, and for a named rule inside
        `optax.flatten`. At `update`, if `params` is missing or does not match the updates or the state.
        Messages name the path of the leaf.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from layca_optax import layca, layer_rotation
      >>> params = {"kernel": jnp.eye(3), "bias": jnp.zeros(3)}
      >>> optimizer = optax.chain(optax.scale_by_adam(), layca(3**-4))
      >>> state = optimizer.init(params)
      >>> loss = lambda p: jnp.sum((jnp.ones(3) @ p["kernel"] + p["bias"] - 2.0) ** 3 / 3)
      >>> updates, state = optimizer.update(jax.grad(loss)(params), state, params)
      >>> new_params = optax.apply_updates(params, updates)
      >>> cosine_distance = layer_rotation(new_params, params)["kernel"]
      >>> print(f"{jnp.arccos(1 - cosine_distance):.3f} rad")  # arctan(1/81)
      0.012 rad

    References:
      Carbonnelle and De Vleeschouwer, `On layer-level control of DNN training and its impact on
      generalization <https://arxiv.org/abs/1806.01603>`_, 2018, Algorithm 1 and Section A.2.
    """
    check_rule(rotate)
    check_rates(learning_rate)
    if retraction not in RETRACTIONS:
        raise ValueError(f"retraction must be one of {', '.join(map(repr, RETRACTIONS))}, not {retraction!r}")
    # Like optax, this also takes objects such as `optax.MultiSteps`, which have another type.
    if others is not None and not (hasattr(others, "init") and hasattr(others, "update")):
        raise ValueError(
            "others must be an optax transformation such as optax.scale_by_learning_rate(1e-3), not a"
            f" {type(others).__name__}"
        )
    inner = None if others is None else optax.with_extra_args_support(others)

    def turn_leaf(*arguments: jax.Array, axes: Axes) -> tuple[jax.Array]:
        return (turn(*arguments, axes=axes, tangent=tangent, retraction=retraction),)

    def init_fn(params: optax.Params) -> LaycaState:
        refuse_flat("layca", rotate, params)
        leaves, treedef = jax.tree.flatten(params)
        axes = vector_axes(rotate, params)
        count = jnp.zeros([], jnp.int32)
        rates_for_leaves(learning_rate, params, axes, _needs_rate(axes, leaves, others), count)
        norms = norms_of_leaves(params, axes)
        refuse_zero_vectors(norms, rotate)
        masked = None if inner is None else optax.masked(inner, _mask_of_others(treedef, axes, leaves))
        return LaycaState(
            count=count,
            initial_norm=norms if leaves else jnp.zeros([]),
            others=optax.EmptyState() if masked is None else masked.init(params),
        )

    def update_fn(
        updates: optax.Updates, state: LaycaState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, LaycaState]:
        if params is None:
            raise ValueError(
                "layca needs the current parameters: call update(updates, state, params), and use it in"
                " chains and wrappers that pass params on; of an Equinox model pass"
                " eqx.filter(model, eqx.is_inexact_array)"
            )
        weights = jax.tree.leaves(params)
        steps, treedef = jax.tree.flatten(updates)
        axes = vector_axes(rotate, params)
        check_same_leaves(params, updates, "updates")
        rotating = rotating_leaves(params, axes)
        norms = by_path(state.initial_norm)
        shapes = {name: vectors_shape(ax) for name, _, ax in rotating}
        check_layers("layca", {name: jnp.shape(norm) for name, norm in norms.items()}, shapes)
        for name, i, ax in rotating:
            refuse_lost_norms(name, norms[name], weights[i], ax)
        rates = rates_for_leaves(learning_rate, params, axes, _needs_rate(axes, weights, others), state.count)
        other_steps, others_state = steps, state.others
        if inner is not None:
            if not isinstance(state.others, optax.MaskedState):
                raise ValueError(
                    "this state of layca was made without `others`. Take that part from a new state,"
                    " new = optimizer.init(params): state._replace(others=new.others)"
                )
            masked = optax.masked(inner, _mask_of_others(treedef, axes, weights))
            other_updates, others_state = masked.update(updates, state.others, params, **extra_args)
            other_steps = jax.tree.leaves(other_updates)

        sign = -1 if flip_sign else 1
        weight = lambda i: jnp.asarray(weights[i])
        leaves = [((weight(i), steps[i]), (sign * rates[i], norms[name])) for name, i, _ in rotating]
        turned = for_each_leaf(turn_leaf, leaves, [ax for _, _, ax in rotating])
        result: dict[int, jax.Array] = {i: u for (_, i, _), (u,) in zip(rotating, turned, strict=True)}
        for i, (w, s, other, rate) in enumerate(zip(weights, steps, other_steps, rates, strict=True)):
            w = jnp.asarray(w)
            if not is_inexact(w):
                result[i] = jnp.zeros_like(w)
            elif i not in result:
                result[i] = _plain_step(w, sign * s, rate) if inner is None else other
        new_state = LaycaState(
            jnp.asarray(optax.safe_increment(state.count)), state.initial_norm, others_state
        )
        return jax.tree.unflatten(treedef, [result[i] for i in range(len(weights))]), new_state

    # optax gives all states one type.
    return optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyrefly: ignore[bad-argument-type]


def _plain_step(weights: jax.Array, step: Any, rate: Any) -> jax.Array:
    dtype = at_least_float32(weights.dtype)
    # The rate is real even if the weights are complex.
    real = jnp.finfo(dtype).dtype
    scaled = rate.astype(at_least_float32(rate.dtype)).astype(real) * jnp.asarray(step).astype(dtype)
    return jnp.where(jnp.isfinite(rate), scaled, 0).astype(weights.dtype)


def _needs_rate(axes: list[Axes | None], leaves: list[Any], others: Any) -> list[bool]:
    return [ax is not None or (others is None and is_inexact(w)) for ax, w in zip(axes, leaves, strict=True)]


def _mask_of_others(treedef: Any, axes: list[Axes | None], leaves: list[Any]) -> Any:
    mask = [ax is None and is_inexact(w) for ax, w in zip(axes, leaves, strict=True)]
    return jax.tree.unflatten(treedef, mask)
