"""Tests the network of Section 3 and the claims without a figure against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import toy
from experiments.adaptivity import variances
from experiments.fig1b import feedback
from experiments.plateau_length import waiting
from experiments.tangent import without_projection
from experiments.toy import Problem, descend
from layca_optax import layca
from training.optimizer import Hyperparameters

WIDTH, IMAGES, CLASSES, RHO = 6, 5, 3, 0.5


def network(seed=0):
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(IMAGES, WIDTH))
    kernels = [rng.normal(size=(WIDTH, size)) / 2 for size in (WIDTH, WIDTH, WIDTH, CLASSES)]
    return inputs, kernels, rng.integers(0, CLASSES, IMAGES)


def backward(outputs, behind, labels, gates=None):
    """Returns the gradients of each image's loss with respect to the output before and after the ReLU."""
    x, passed = outputs, []
    for i, kernel in enumerate(behind):
        gate = gates[i - 1] if gates is not None and i > 0 else x > 0
        passed.append(gate)
        x = (x * gate) @ kernel
    exponentials = np.exp(x - x.max(axis=1, keepdims=True))
    error = exponentials / exponentials.sum(axis=1, keepdims=True) - np.eye(CLASSES)[labels]
    for kernel, gate in zip(reversed(behind), reversed(passed), strict=True):
        after = error @ kernel.T
        error = after * gate
    return error, after


def loss(outputs, behind, labels):
    """Returns the mean cross-entropy and the accuracy."""
    x = outputs
    for kernel in behind:
        x = np.maximum(x, 0) @ kernel
    losses = np.log(np.exp(x).sum(axis=1)) - x[np.arange(IMAGES), labels]
    return losses.mean(), np.mean(x.argmax(axis=1) == labels)


@pytest.mark.parametrize("frozen", [False, True])
def test_training_one_layer_is_gradient_descent_on_its_kernel(frozen):
    inputs, (kernel, *behind), labels = network()
    gates = None
    if frozen:
        x, gates = np.maximum(inputs @ kernel, 0), []
        for later in behind[:-1]:
            x = np.maximum(x @ later, 0)
            gates.append(x > 0)
    problem = Problem(inputs @ inputs.T, inputs @ kernel, labels, behind, gates)
    problem = jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype.name.replace("64", "32")), problem)
    gradients = jnp.zeros_like(problem.initial)
    trained = kernel.copy()
    for _ in range(4):
        gradients, *_ = descend(problem, gradients, RHO)
        before, _ = backward(inputs @ trained, behind, labels, gates)
        trained -= RHO * inputs.T @ before / IMAGES
    assert np.abs(trained - kernel).max() > 0.05
    np.testing.assert_allclose(
        problem.initial - RHO * problem.gram @ gradients, inputs @ trained, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("until_loss", "expected"), [(0.3, range(2, 299)), (0.0, [300])])
def test_one_layer_trains_until_its_loss_or_for_all_steps(until_loss, expected, monkeypatch):
    monkeypatch.setattr(toy, "STEPS", 300)
    toy.until_trained.clear_cache()
    inputs, (kernel, *_, head), labels = network(5)
    behind = [head]
    trained, found = kernel.copy(), [(np.inf, 0.0)]
    while len(found) <= 300 and (found[-1][0] > until_loss or found[-1][1] < 1):
        before, _ = backward(inputs @ trained, behind, labels)
        found.append(loss(inputs @ trained, behind, labels))
        trained -= RHO * inputs.T @ before / IMAGES
    assert len(found) - 1 in expected
    problem = Problem(inputs @ inputs.T, inputs @ kernel, labels, behind, None)
    problem = jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype.name.replace("64", "32")), problem)
    _, last, _, steps = toy.until_trained(problem, RHO, until_loss)
    assert (int(steps), float(last)) == (len(found) - 1, pytest.approx(found[-1][0], rel=1e-2))
    toy.until_trained.clear_cache()


def test_feedback_is_the_gradient_after_the_relu():
    inputs, (kernel, *behind), labels = network(1)
    outputs = inputs @ kernel
    _, after = backward(outputs, behind, labels)
    found = feedback([jnp.asarray(k, jnp.float32) for k in behind], jnp.asarray(outputs), jnp.asarray(labels))
    np.testing.assert_allclose(found, after, rtol=1e-4, atol=1e-6)


def test_both_variances_add_up_to_the_whole():
    rng = np.random.default_rng(0)
    squares = {"a": rng.lognormal(size=(3, 4)), "b": 1e-6 * rng.lognormal(size=50), "c": np.array([0.0, 1.0])}
    between, inside = variances(squares)
    logs = [-0.5 * np.log10(leaf[leaf > 0]).ravel() for leaf in squares.values()]
    assert between + inside == pytest.approx(np.var(np.concatenate(logs)))
    assert variances({"a": np.full(3, 1e-4), "b": np.full(3, 1e-8)}) == pytest.approx((1.0, 0.0))


def test_without_projection_is_layca_without_the_tangent():
    params = {"kernel": jnp.arange(1.0, 7).reshape(2, 3)}
    steps = {"kernel": jnp.array([[1.0, 0, 2], [0, 3, 1]])}
    hparams = Hyperparameters(0.1, 0.0, 0.0)
    optimizer = without_projection("sgd", True, hparams, {"kernel": 0}, lambda count: 1.0)
    updates = [
        transformation.update(steps, transformation.init(params), params)[0]["kernel"]
        for transformation in (optimizer, layca(0.1, tangent=False), layca(0.1))
    ]
    np.testing.assert_allclose(updates[0], updates[1], rtol=1e-6)
    assert np.abs(updates[0] - updates[2]).max() > 1e-3


def test_the_learning_rate_drops_after_the_wait():
    run = waiting("laptop", layca=False)[12][0]
    assert run.config.epochs == 24
    make = run.optimizer()
    assert make is waiting("laptop", layca=False)[12][1].optimizer()
    params = {"kernel": jnp.ones((2, 2))}
    optimizer = make("sgd", False, Hyperparameters(1.0, 0.0, 0.0), {"kernel": 0}, lambda count: 1.0)
    state = optimizer.init(params)
    rates = []
    # 1,024 images make 8 steps per epoch.
    update = jax.jit(optimizer.update)
    for _ in range(24 * 8):
        updates, state = update(params, state, params)
        rates.append(-float(updates["kernel"][0, 0]))
    expected = np.repeat([1.0, 0.2, 0.04], [12 * 8, 6 * 8, 6 * 8])
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
    assert optax.tree.get(state, "count") == 24 * 8
