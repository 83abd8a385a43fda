"""Tests that every optimizer gives the same result on parameters sharded over 8 devices as on one."""

import jax
import jax.numpy as jnp
import optax
import optax.tree
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from optimizers import (
    GRADIENTS,
    MUON,
    OPTIMIZERS,
    PARAMS,
    around,
    assert_close,
    every_optimizer,
    reference,
    schedule,
)

from layca_optax import layca

SPECS = {
    "bias": PartitionSpec("model"),
    "kernel": PartitionSpec("data", "model"),
    "stack": PartitionSpec("model", None, "data"),
}
MESHES = {
    "explicit": lambda: jax.make_mesh((4, 2), ("data", "model")),
    "automatic": lambda: jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2),
}


def with_automatic_axes(inner):
    """Leaves the shardings inside `inner` to the compiler, on an explicit mesh."""
    shardings = lambda tree: jax.tree.map(lambda leaf: jax.typeof(leaf).sharding, tree)

    def init(params):
        state = inner.init(params)
        return jax.sharding.reshard(state, shardings(state))

    def update(updates, state, params=None):
        automatic = jax.sharding.auto_axes(inner.update, out_sharding=shardings((updates, state)))
        return automatic(updates, state, params)

    return optax.GradientTransformation(init, update)


# Explicit meshes refuse the matrix products of optax's Muon along sharded axes, with or without Layca.
ON_EXPLICIT_MESHES = OPTIMIZERS | {"layca around muon": around(with_automatic_axes(MUON))}


def sharded_init(optimizer, mesh, params):
    """Makes the state sharded, under jit, as is done for states too large for one device."""
    is_masked = lambda node: isinstance(node, optax.MaskedNode)
    specs = optax.tree.map_params(
        optimizer,
        lambda leaf, spec: leaf if is_masked(leaf) else spec,
        jax.eval_shape(optimizer.init, params),
        SPECS,
        transform_non_params=lambda leaf: PartitionSpec(),
        is_leaf=is_masked,
    )
    shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
    return jax.jit(optimizer.init, out_shardings=shardings)(params)


@pytest.mark.parametrize("kind", MESHES)
@every_optimizer
def test_sharded_over_8_devices(name, kind):
    optimizer = (ON_EXPLICIT_MESHES if kind == "explicit" else OPTIMIZERS)[name](schedule)
    mesh = MESHES[kind]()
    put = lambda leaf, spec: jax.device_put(leaf, NamedSharding(mesh, spec))

    @jax.jit
    def step(params, state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    with jax.set_mesh(mesh):
        params = jax.tree.map(put, PARAMS, SPECS)
        assert len(params["kernel"].addressable_shards) == 8
        state = optimizer.init(params) if kind == "explicit" else sharded_init(optimizer, mesh, params)
        for gradient in GRADIENTS:
            params, state = step(params, state, jax.tree.map(put, gradient, SPECS))
        assert step._cache_size() == 1
    for leaf, spec in SPECS.items():
        assert params[leaf].sharding == NamedSharding(mesh, spec)
    assert_close(
        jax.device_get((params, state)),
        jax.device_get((reference(name).params[-1], reference(name).states[-1])),
    )


@pytest.mark.parametrize(
    "scale", [pytest.param(1.0, marks=pytest.mark.slow), 1e-30], ids=["usual gradient", "tiny gradient"]
)
@pytest.mark.parametrize("rotate", ["layer", pytest.param("neuron", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", MESHES)
def test_leaves_of_one_shape_keep_different_shardings(kind, rotate, scale):
    specs = [("data", "model"), ("data", None), (None, "model"), (None, ("data", "model")), (None, None)]
    mesh = MESHES[kind]()
    shardings = [NamedSharding(mesh, PartitionSpec(*spec)) for spec in specs]
    optimizer = layca(0.1, rotate=rotate)
    params, gradient = (
        [jax.random.normal(jax.random.key(seed + i), (16, 8)) for i in range(len(specs))] for seed in (0, 100)
    )
    gradient = [scale * g for g in gradient]
    expected, _ = optimizer.update(gradient, optimizer.init(params), params)

    with jax.set_mesh(mesh):
        params, gradient = jax.device_put((params, gradient), (shardings, shardings))
        updates, _ = jax.jit(optimizer.update)(gradient, jax.jit(optimizer.init)(params), params)
    for update, sharding in zip(updates, shardings, strict=True):
        assert update.sharding.is_equivalent_to(sharding, update.ndim)
        assert jnp.any(update != 0)
    assert_close(jax.device_get(updates), jax.device_get(expected))
