"""Tests `track_rotation` in optax's wrappers, Flax's optimizers and JAX's transformations, and saved."""

import pickle
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import orbax.checkpoint as ocp
import pytest
from flax import linen as nn
from flax import nnx
from flax.training.train_state import TrainState
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from layca_optax import TrackRotationState, layca, rotation_report, track_rotation

RNG = np.random.default_rng(0)
PARAMS = {
    "bias": jnp.ones(8),
    "layers": [{"kernel": jnp.float32(RNG.normal(size=(8, 16)))} for _ in range(2)],
}
GRADIENTS = [jax.tree.map(lambda w: jnp.float32(RNG.normal(size=w.shape)), PARAMS) for _ in range(4)]
PATHS = ["layers/0/kernel", "layers/1/kernel"]


def tracked(learning_rate=0.1):
    return optax.chain(layca(learning_rate), track_rotation())


def train(optimizer, params=PARAMS, gradients=GRADIENTS):
    """Returns the last state, and the parameters at first and after every step that changed them."""
    step = jax.jit(lambda g, state, w: optimizer.update(g, state, w))
    state, trajectory = optimizer.init(params), [params]
    for gradient in gradients:
        updates, state = step(gradient, state, trajectory[-1])
        if any(jnp.any(u != 0) for u in jax.tree.leaves(updates)):
            trajectory.append(optax.apply_updates(trajectory[-1], updates))
    return state, trajectory


def assert_right(report, trajectory, paths=PATHS):
    first, second, third = (
        {f"layers/{i}/kernel": layer["kernel"] for i, layer in enumerate(trajectory[j]["layers"])}
        for j in (0, -2, -1)
    )
    assert list(report) == list(paths)
    for path in paths:
        expected = {
            "from_init": oracle.cosine_distance(third[path], first[path]),
            "last_step": oracle.angle(third[path], second[path]),
            "norm": oracle.norm(third[path]) / oracle.norm(first[path]),
        }
        assert report[path] == pytest.approx(expected, rel=1e-4)


def by_layer(learning_rate):
    optimizers = {"a": tracked(learning_rate), "b": tracked(2 * learning_rate), "c": tracked(learning_rate)}
    labels = {"bias": "c", "layers": [{"kernel": "a"}, {"kernel": "b"}]}
    return optax.partition(optimizers, labels)


@pytest.mark.parametrize(
    ("optimizer", "paths", "changes"),
    [
        pytest.param(optax.chain(optax.adam(1e-2), track_rotation()), PATHS, 4, id="adam"),
        pytest.param(by_layer(0.1), PATHS, 4, id="partition"),
        pytest.param(
            optax.masked(tracked(), {"bias": False, "layers": [True, False]}), PATHS[:1], 4, id="masked"
        ),
        pytest.param(optax.MultiSteps(tracked(), 2), PATHS, 2, id="MultiSteps"),
        pytest.param(optax.inject_hyperparams(by_layer)(0.1), PATHS, 4, id="inject_hyperparams"),
        pytest.param(optax.apply_if_finite(tracked(), 3), PATHS, 4, id="apply_if_finite"),
    ],
)
def test_right_numbers_in_every_wrapper(optimizer, paths, changes):
    state, trajectory = train(optimizer)
    assert len(trajectory) == 1 + changes
    assert_right(rotation_report(state), trajectory, paths)


class Layers(nnx.Module):
    def __init__(self, rngs, init):
        self.layers = nnx.List(nnx.Linear(8, 8, kernel_init=init, rngs=rngs) for _ in range(2))

    def __call__(self, x):
        return self.layers[1](self.layers[0](x))


def test_nnx_optimizer():
    model = Layers(nnx.Rngs(0), nnx.initializers.lecun_normal())
    optimizer = nnx.Optimizer(model, tracked(), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        gradients = nnx.grad(lambda model: jnp.sum(model(jnp.ones((2, 8))) ** 2))(model)
        optimizer.update(model, gradients)

    weights = lambda: jax.tree.map(jnp.copy, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    trajectory = [weights()]
    for _ in range(3):
        step(model, optimizer)
        trajectory.append(weights())
    trajectory = [{"layers": list(pure["layers"].values())} for pure in trajectory]
    assert_right(rotation_report(optimizer.opt_state), trajectory)


class Dense(nn.Module):
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x):
        return nn.Dense(8, kernel_init=self.kernel_init, use_bias=False)(x)


@pytest.mark.parametrize("annotated", [False, True])
def test_linen_train_state(annotated):
    init = nn.initializers.lecun_normal()
    model = Dense(nn.with_partitioning(init, ("a", "b")) if annotated else init)
    variables = model.init(jax.random.key(0), jnp.ones((2, 8)))
    state = TrainState.create(apply_fn=model.apply, params=variables["params"], tx=tracked())

    @jax.jit
    def step(state):
        loss = lambda params: jnp.sum(state.apply_fn({"params": params}, jnp.ones((2, 8))) ** 2)
        return state.apply_gradients(grads=jax.grad(loss)(state.params))

    trajectory = [state := step(state) if i else state for i in range(4)]
    as_layers = [{"layers": [{"kernel": jax.tree.leaves(s.params)[0]}]} for s in trajectory]
    report = rotation_report(state)
    assert_right({"layers/0/kernel": report.pop("Dense_0/kernel")}, as_layers, PATHS[:1])
    assert report == {}


def test_the_copy_is_sharded_as_flax_was_told_to_shard_the_parameter():
    model = Dense(nn.with_partitioning(nn.initializers.lecun_normal(), ("a", "b")))
    boxed = model.init(jax.random.key(0), jnp.ones((2, 8)))["params"]
    specs = nn.get_partition_spec(jax.eval_shape(track_rotation().init, boxed))
    assert specs.initial == {"Dense_0/kernel": P("a", "b")}
    assert specs.measured == {"Dense_0/kernel": P()}

    init = nnx.with_partitioning(nnx.initializers.lecun_normal(), ("a", "b"))
    create = lambda: nnx.Optimizer(Layers(nnx.Rngs(0), init), track_rotation(), wrt=nnx.Param)
    with jax.set_mesh(jax.make_mesh((1, 1), ("a", "b"))):
        specs = nnx.get_partition_spec(nnx.state(nnx.eval_shape(create)))
    specs = {path: spec.get_value() for path, spec in nnx.to_flat_state(specs)}
    assert specs["opt_state", "initial", "layers/0/kernel"] == P("a", "b")
    assert specs["opt_state", "measured", "layers/0/kernel"] == P()


def scan(tracker, w, state, updates):
    def step(carry, update):
        w, state = carry
        _, state = tracker.update(0.1 * update, state, w)
        return (w + 0.1 * update, state), None

    return jax.lax.scan(step, (w, state), updates)[0]


@pytest.mark.parametrize("transform", [jax.vmap, jax.pmap])
@pytest.mark.parametrize("rotate", ["layer", pytest.param("neuron", marks=pytest.mark.slow)])
def test_seeds_in_parallel(transform, rotate):
    seeds = jnp.arange(jax.local_device_count() if transform is jax.pmap else 2)
    tracker = track_rotation(rotate=rotate)

    def run(seed):
        w, *updates = jax.random.normal(jax.random.key(seed), (4, 5, 3))
        return scan(tracker, w, tracker.init(w), jnp.stack(updates))[1]

    report = rotation_report(transform(run)(seeds))["."]
    one = jax.jit(run)
    alone = [rotation_report(one(seed))["."] for seed in seeds]
    for name in ("from_init", "last_step", "norm"):
        assert isinstance(report[name], np.ndarray)
        np.testing.assert_allclose(report[name], np.stack([seed[name] for seed in alone]), rtol=1e-4)


@pytest.mark.parametrize("axis_type", [jax.sharding.AxisType.Explicit, jax.sharding.AxisType.Auto])
@pytest.mark.parametrize("rotate", ["layer", pytest.param("neuron", marks=pytest.mark.slow)])
def test_sharded_parameters(axis_type, rotate):
    mesh = jax.make_mesh((jax.device_count(),), ("x",), axis_types=(axis_type,))
    tracker = track_rotation(rotate=rotate)
    run = jax.jit(partial(scan, tracker))
    w, updates = jnp.float32(RNG.normal(size=(8, 16))), jnp.float32(RNG.normal(size=(3, 8, 16)))
    _, alone = run(w, tracker.init(w), updates)
    with jax.set_mesh(mesh):
        w, updates = jax.device_put(w, P(None, "x")), jax.device_put(updates, P(None, None, "x"))
        state = tracker.init(w)
        assert state.initial["."].sharding == NamedSharding(mesh, P(None, "x"))
        w, state = run(w, state, updates)
        report, compiled = rotation_report(state)["."], run._cache_size()
        run(w, state, updates)
        assert run._cache_size() == compiled
    for name, value in rotation_report(alone)["."].items():
        np.testing.assert_allclose(report[name], value, rtol=1e-4)


def test_map_params_leaves_the_state_as_it_is():
    for optimizer in (tracked(), by_layer(0.1)):
        state = optimizer.init(PARAMS)
        mapped = optax.tree.map_params(optimizer, lambda w: w + 1, state)
        chex.assert_trees_all_equal_structs(mapped, state)
        chex.assert_trees_all_equal(mapped, state)


def test_pickled_or_saved_by_orbax_it_is_restored_unchanged(tmp_path):
    state, _ = train(by_layer(0.1), gradients=GRADIENTS[:1])
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        saved = checkpointer.restore(tmp_path / "state", jax.eval_shape(lambda: state))
    for restored in (saved, pickle.loads(pickle.dumps(state))):
        chex.assert_trees_all_equal_structs(restored, state)
        chex.assert_trees_all_equal(restored, state)
        assert rotation_report(restored) == rotation_report(state)


def test_the_state_of_a_tree_without_leaves_can_be_saved(tmp_path):
    state = track_rotation().init({})
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        assert isinstance(checkpointer.restore(tmp_path / "state", state), TrackRotationState)
