"""Tests that after `rebase` loaded weights keep their norms, and the rest of the state is unchanged."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from flax import linen as nn
from flax import nnx
from flax.training.train_state import TrainState
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from layca_optax import layca, rebase, rotation_report, skip_nonfinite, track_rotation

RATE = 0.1


def random_tree(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    shapes = {"bias": (6,), "first": {"kernel": (4, 6)}, "second": {"kernel": (6, 6)}}
    is_shape = lambda node: isinstance(node, tuple)
    return jax.tree.map(lambda s: jnp.float32(scale * rng.normal(size=s)), shapes, is_leaf=is_shape)


PARAMS, GRADIENT, LOADED = random_tree(0), random_tree(1), random_tree(2, scale=10.0)
KERNELS = ("first", "second")


def on_adam(rate=RATE, rotate="layer"):
    return optax.chain(optax.scale_by_adam(), layca(rate, rotate=rotate), track_rotation(rotate=rotate))


LABELS = {"bias": "rest", "first": {"kernel": "a"}, "second": {"kernel": "b"}}
OPTIMIZERS = {
    "chain": on_adam(),
    "masked": optax.masked(on_adam(), {"bias": False, "first": True, "second": True}),
    "partition": optax.partition(
        {"a": on_adam(), "b": on_adam(), "rest": optax.set_to_zero()}, lambda params: LABELS
    ),
    "skip_nonfinite": skip_nonfinite(on_adam(), zeros=True),
    "inject_hyperparams": optax.inject_hyperparams(on_adam)(RATE),
    "MultiSteps": optax.MultiSteps(on_adam(), 1),
    "others": optax.chain(layca(RATE, others=optax.adam(0.1)), track_rotation()),
}


def trained(optimizer, params=PARAMS, steps=2):
    state = optimizer.init(params)
    for _ in range(steps):
        updates, state = optimizer.update(GRADIENT, state, params)
        params = optax.apply_updates(params, updates)
    return state


@pytest.mark.parametrize("jitted", [pytest.param(False, marks=pytest.mark.slow), True], ids=["plain", "jit"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_loaded_weights_keep_their_norm_and_turn_by_the_rate(name, jitted):
    optimizer = OPTIMIZERS[name]
    state = trained(optimizer)
    rebased = (jax.jit(rebase) if jitted else rebase)(state, LOADED)
    chex.assert_trees_all_equal_structs(rebased, state)
    updates, after = optimizer.update(GRADIENT, rebased, LOADED)
    report = rotation_report(after)
    old, _ = optimizer.update(GRADIENT, state, LOADED)
    for layer in KERNELS:
        loaded = LOADED[layer]["kernel"]
        new = loaded + updates[layer]["kernel"]
        assert oracle.norm(new) == pytest.approx(oracle.norm(loaded), rel=1e-6)
        assert oracle.angle(new, loaded) == pytest.approx(np.arctan(RATE), rel=1e-5)
        # Without `rebase`.
        drawn_back = loaded + old[layer]["kernel"]
        assert oracle.norm(drawn_back) == pytest.approx(oracle.norm(PARAMS[layer]["kernel"]), rel=1e-5)
        expected = {
            "from_init": oracle.cosine_distance(new, loaded),
            "last_step": np.arctan(RATE),
            "norm": 1.0,
        }
        assert report[f"{layer}/kernel"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_rest_of_the_state_is_kept(name):
    state = trained(OPTIMIZERS[name])
    rebased = rebase(state, LOADED)
    before, after = (dict(jax.tree_util.tree_leaves_with_path(tree)) for tree in (state, rebased))
    ours = ("initial_norm", "inverse_norm", "initial", "measured")
    changed = {keys for keys in before if not np.array_equal(before[keys], after[keys])}
    assert changed
    for keys in changed:
        assert any(getattr(key, "name", None) in ours for key in keys), keys
    told = rotation_report(rebased)
    assert told.keys() == rotation_report(state).keys()
    for path, report in told.items():
        assert (report["from_init"], report["norm"]) == (0, 1)
        assert report["last_step"] == rotation_report(state)[path]["last_step"] > 0


def test_nothing_is_shared_with_the_parameters():
    loaded = jax.tree.map(jnp.copy, LOADED)
    state = rebase(trained(OPTIMIZERS["chain"]), loaded)
    step = jax.jit(lambda w, s: OPTIMIZERS["chain"].update(GRADIENT, s, w), donate_argnums=(0, 1))
    step(loaded, state)


@pytest.mark.slow
def test_rules_with_several_vectors_and_weights_of_another_size():
    for rotate, axis in (("neuron", 0), (lambda path, leaf: (0,) if leaf.ndim == 2 else None, 1)):
        state = trained(on_adam(rotate=rotate))
        rebased = rebase(state, LOADED, rotate=rotate)
        larger = {**LOADED, "second": {"kernel": jnp.ones((9, 7))}}
        for weights, result in ((LOADED, rebased), (larger, rebase(state, larger, rotate=rotate))):
            for layer in KERNELS:
                kernel = np.asarray(weights[layer]["kernel"], np.float64)
                np.testing.assert_allclose(
                    result[1].initial_norm[f"{layer}/kernel"], np.linalg.norm(kernel, axis=axis), rtol=1e-6
                )
            tracker = optax.tree.get(result, "measured")
            assert tracker["second/kernel"].shape == (*np.linalg.norm(kernel, axis=axis).shape, 3)


def test_parts_with_rules_of_their_own():
    rules = {"first/kernel": (1,), "second/kernel": (), "bias": None}
    optimizer = optax.partition(
        {"a": on_adam(rotate="neuron"), "b": on_adam(), "rest": optax.set_to_zero()}, lambda params: LABELS
    )
    rebased = rebase(trained(optimizer), LOADED, rotate=lambda path, leaf: rules[path])
    updates, _ = optimizer.update(GRADIENT, rebased, LOADED)
    kernel = LOADED["first"]["kernel"]
    np.testing.assert_allclose(
        np.linalg.norm(kernel + updates["first"]["kernel"], axis=0), np.linalg.norm(kernel, axis=0), rtol=1e-6
    )


def test_states_of_several_seeds():
    stack = lambda *trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    optimizer = OPTIMIZERS["chain"]
    states = jax.vmap(optimizer.init)(stack(PARAMS, GRADIENT))
    norms = jax.vmap(rebase)(states, stack(LOADED, PARAMS))[1].initial_norm["first/kernel"]
    expected = [oracle.norm(tree["first"]["kernel"]) for tree in (LOADED, PARAMS)]
    np.testing.assert_allclose(norms, expected, rtol=1e-6)


@pytest.mark.parametrize("jitted", [pytest.param(False, marks=pytest.mark.slow), True], ids=["plain", "jit"])
@pytest.mark.parametrize("axis_type", [AxisType.Explicit, AxisType.Auto])
def test_sharded_weights(axis_type, jitted):
    mesh = jax.make_mesh((2,), ("x",), axis_types=(axis_type,))
    put = lambda tree: jax.tree.map(
        lambda w: jax.device_put(w, NamedSharding(mesh, P(*(None,) * (w.ndim - 1), "x"))), tree
    )
    optimizer = on_adam(rotate="neuron")
    again = functools.partial(rebase, rotate="neuron")
    expected, _ = optimizer.update(GRADIENT, again(optimizer.init(PARAMS), LOADED), LOADED)
    with jax.set_mesh(mesh):
        params, gradient, loaded = put(PARAMS), put(GRADIENT), put(LOADED)
        state = (jax.jit(again) if jitted else again)(jax.jit(optimizer.init)(params), loaded)
        assert state[2].initial["first/kernel"].sharding.spec == P(None, "x")
        updates, _ = jax.jit(optimizer.update)(gradient, state, loaded)
    chex.assert_trees_all_close(jax.device_get(updates), jax.device_get(expected), rtol=1e-5, atol=1e-5)


def test_nnx_optimizer():
    model = nnx.Linear(4, 6, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, on_adam(), wrt=nnx.Param)
    step = nnx.jit(lambda model, optimizer: optimizer.update(model, nnx.state(model, nnx.Param)))
    nnx.update(model, {"kernel": LOADED["first"]["kernel"], "bias": LOADED["bias"]})
    optimizer.opt_state = rebase(optimizer.opt_state, nnx.state(model, nnx.Param))
    step(model, optimizer)
    assert oracle.norm(model.kernel[...]) == pytest.approx(oracle.norm(LOADED["first"]["kernel"]), rel=1e-6)
    assert rotation_report(optimizer.opt_state)["kernel"]["norm"] == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("annotated", [False, True])
def test_linen_train_state(annotated):
    init = nn.initializers.lecun_normal()
    model = nn.Dense(6, kernel_init=nn.with_partitioning(init, ("a", "b")) if annotated else init)
    variables = model.init(jax.random.key(0), jnp.ones((2, 4)))
    state = TrainState.create(apply_fn=model.apply, params=variables["params"], tx=on_adam())
    loaded = jax.tree.map(lambda w: 10 * w, state.params)
    state = state.replace(params=loaded, opt_state=rebase(state.opt_state, loaded))
    state = state.apply_gradients(grads=jax.tree.map(lambda w: jnp.flip(w) + 1, loaded))
    kernel, before = (jax.tree.leaves(tree["kernel"])[0] for tree in (state.params, loaded))
    assert oracle.norm(kernel) == pytest.approx(oracle.norm(before), rel=1e-6)
    specs = nn.get_partition_spec(jax.eval_shape(lambda: state.opt_state))
    assert specs[2].initial["kernel"] == (P("a", "b") if annotated else P())


def errors():
    state = on_adam().init(PARAMS)
    restored = [state[0]._asdict(), state[1]._asdict(), state[2]._asdict()]
    adam = optax.adam(0.1).init(PARAMS)
    zero = {**LOADED, "first": {"kernel": jnp.zeros((4, 6))}}
    renamed = {**{k: v for k, v in LOADED.items() if k != "first"}, "other": LOADED["first"]}
    yield "no state of ours", lambda: rebase(adam, LOADED), "it holds ScaleByAdamState, EmptyState"
    yield (
        "dictionaries",
        lambda: rebase(restored, LOADED),
        "dictionaries where it had a LaycaState.*eval_shape",
    )
    yield "zero weights", lambda: rebase(state, zero), "turn from: 'first/kernel'"
    yield ("a renamed layer", lambda: rebase(state, renamed), "'first/kernel' rotates in this state of layca")
    by_neuron = on_adam(rotate="neuron").init(PARAMS)
    yield "another rule", lambda: rebase(by_neuron, LOADED), r"shape \(6,\) .* and \(\) with rotate='layer'"
    yield "unknown rule", lambda: rebase(state, LOADED, rotate="layers"), "did you mean 'layer'"
    shapes = jax.eval_shape(lambda: LOADED)
    yield "no values", lambda: rebase(state, shapes), "'first/kernel' is a ShapeDtypeStruct"


@pytest.mark.parametrize(("call", "message"), [pytest.param(c, m, id=name) for name, c, m in errors()])
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("params", [{}, {"a": None}, {"bias": jnp.ones(2)}])
def test_trees_in_which_nothing_rotates(params):
    state = on_adam().init(params)
    chex.assert_trees_all_equal(rebase(state, params), state)
