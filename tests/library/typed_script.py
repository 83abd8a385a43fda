"""Uses every public name as a user does. `test_types.py` runs it and has type checkers read it."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import layca_optax
from layca_optax import (
    LaycaState,
    SkipNonfiniteState,
    TrackRotationState,
    alpha_learning_rates,
    alpha_multipliers,
    check_descent,
    check_state,
    describe,
    layca,
    layer_depths,
    layer_rotation,
    rebase,
    rotation_report,
    rotation_scalars,
    sgd_amom,
    skip_nonfinite,
    track_rotation,
)


def one_vector_per_row(path: str, leaf: Any) -> tuple[int, ...] | None:
    return (0,) if path.endswith("embedding") and leaf.ndim == 2 else None


def three_parts(path: str, leaf: Any) -> tuple[tuple[int, int], ...] | None:
    del leaf
    return ((1, 3),) if path.endswith("c_attn") else None


def network(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return jnp.tanh(x @ params["first"]) @ params["last"] + params["bias"][None]


def loss(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return jnp.sum(network(params, x) ** 2)


# Learning rates of every kind.
schedule = optax.constant_schedule(0.1)
every_rate = [
    layca(),
    layca(3**-3),
    layca(1),
    layca(np.float32(0.1)),
    layca(jnp.array(0.1)),
    layca(schedule),
    layca(lambda count: 0.1 / (1 + count)),
    layca({"kernel": 0.1, "bias": schedule}),
    layca({"layers": [0.1, schedule], "head": {"kernel": jnp.array([0.1, 0.2])}}),
    layca([0.1, 0.2]),
]
every_rule = [
    layca(rotate="layer", retraction="geodesic", tangent=False, flip_sign=False),
    layca(rotate="stacked_layer", retraction="projection"),
    layca(rotate="neuron", others=optax.adam(1e-3)),
    layca(rotate=one_vector_per_row),
    layca(rotate=three_parts),
    layca(rotate=lambda path, leaf: (0, -1) if leaf.ndim == 3 else None),
    layca(rotate=lambda path, leaf: None),
    track_rotation(rotate="neuron"),
]

keys = jax.random.split(jax.random.key(0))
params = {
    "first": jax.random.normal(keys[0], (4, 8)),
    "last": jax.random.normal(keys[1], (8, 2)),
    "bias": jnp.zeros(2),
}
x = jnp.ones((3, 4))
gradients = jax.grad(loss)(params, x)

depths = layer_depths(network, params, x, rotate="layer")
multipliers: jax.Array = alpha_multipliers(0.2, 2, exponent=5.0)
rates = alpha_learning_rates(schedule, 0.2, depths)
optimizer: optax.GradientTransformationExtraArgs = skip_nonfinite(
    optax.chain(optax.scale_by_adam(), layca(rates), track_rotation()), zeros=True
)
table: str = describe(params, learning_rate=rates, optimizer=optimizer)
check_descent(optimizer, params, gradients)

opt_state = optimizer.init(params)
check_state(opt_state)
updates, opt_state = optimizer.update(gradients, opt_state, params)
new_params = optax.apply_updates(params, updates)
opt_state = rebase(opt_state, new_params, rotate="layer")

for layer, turn in rotation_report(opt_state).items():
    name: str = layer
    print(f"{name}: {turn['from_init']:.3f}, {turn['last_step']:.4f} rad, {turn['norm']:.3f}")
    print(float(turn["last_step"]) < 1.0)
scalars: dict[str, float | jax.Array] = rotation_scalars(opt_state, prefix="turned")
print(sum(float(value) for value in scalars.values()) > 0)
distances: dict[str, jax.Array] = layer_rotation(new_params, params)
print({layer: float(distance) for layer, distance in distances.items()})


@jax.jit
def report_inside_jit(state: optax.OptState) -> Any:
    return {layer: turn["last_step"] for layer, turn in rotation_report(state).items()}


report_inside_jit(opt_state)

skip_state: SkipNonfiniteState = SkipNonfiniteState(optax.EmptyState(), {"w": jnp.int32(0)})
layca_state = LaycaState(jnp.int32(3), {"w": jnp.float32(1.0)}, optax.EmptyState())
tracker_state = track_rotation().init(params)
assert isinstance(tracker_state, TrackRotationState)
print(skip_state.skipped_steps, skip_state.zero_steps, layca_state.count + 1, tracker_state.measured)
print(layca_optax.__version__.split("."))

paper: optax.GradientTransformation = sgd_amom(schedule, momentum=0.9)
paper.update(gradients, paper.init(params))
injected = optax.inject_hyperparams(layca, static_args=("rotate",))(0.1, rotate=one_vector_per_row)
injected.init({"embedding": jnp.ones((2, 3))})

# Modules of Flax and Equinox.
linear = nnx.Linear(4, 2, rngs=nnx.Rngs(0))
state = nnx.state(linear, nnx.Param)
nnx_optimizer = nnx.Optimizer(linear, optax.chain(layca(0.1), track_rotation()), wrt=nnx.Param)
print(describe(state), layer_rotation(state, state), rotation_report(nnx_optimizer.opt_state))
check_descent(layca(), state, jax.tree.map(jnp.cos, state))
mlp = eqx.nn.MLP(4, 2, 8, 1, key=keys[0])
arrays = eqx.filter(mlp, eqx.is_inexact_array)
print(
    describe(arrays),
    layer_rotation(arrays, arrays),
    layer_depths(
        lambda m, x: m.layers[0].weight @ x,
        arrays,
        x[0],
        rotate=lambda path, leaf: () if path == "layers/0/weight" else None,
    ),
)
