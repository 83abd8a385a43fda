"""Tests Layca on any base and with any flags, on tasks and text, and the choice of rates."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from experiments import rates, tangent
from experiments.experiment import experiment
from experiments.log import Log
from experiments.results import Results
from experiments.variants import Language, rotate, variant
from experiments.work import line
from training.optimizer import Hyperparameters


@pytest.mark.parametrize("flags", [{}, {"tangent": False}, {"retraction": "geodesic"}])
@pytest.mark.parametrize("base", ["momentum", "muon"])
def test_a_step_follows_the_rate_and_the_flags(base, flags):
    rng = np.random.default_rng(0)
    kernel, gradient = rng.normal(size=(2, 3, 3, 2, 4))
    make = variant("mnist5k-vgg", base, -2, 0, **flags).optimizer()
    assert make is variant("mnist5k-vgg", base, -4, 1, **flags).optimizer()
    optimizer = make("sgd", True, Hyperparameters(3.0**-2, 0.0, 0.0), {"k": 0}, lambda count: 1.0)
    params = {"k": jnp.float32(kernel)}
    updates, _ = jax.jit(optimizer.update)({"k": jnp.float32(gradient)}, optimizer.init(params), params)
    after = kernel + np.asarray(updates["k"], np.float64)
    if flags != {"tangent": False}:
        expected = 3.0**-2 if flags else np.arctan(3.0**-2)
        assert oracle.angle(kernel, after) == pytest.approx(expected, rel=1e-5)
    elif base == "momentum":
        step = kernel - 3.0**-2 * oracle.norm(kernel) * gradient / oracle.norm(gradient)
        np.testing.assert_allclose(after, step * oracle.norm(kernel) / oracle.norm(step), rtol=1e-5)
    if base == "muon":
        # The direction of the step, as a matrix of 18 inputs and 4 outputs, is nearly orthogonal.
        step = (after / oracle.norm(after) - kernel / oracle.norm(kernel)).reshape(18, 4)
        if flags == {}:
            across = step - (step * kernel.reshape(18, 4)).sum() / (kernel**2).sum() * kernel.reshape(18, 4)
            values = np.linalg.svd(across, compute_uv=False)
            assert values.max() / values.min() < 2


def test_text_rotates_embeddings_as_one_vector_and_kernels_by_block():
    leaf = jnp.ones((2, 3, 3))
    assert rotate("blocks/up/kernel", leaf) == (0,)
    assert rotate("embedding/embedding", leaf) == ()
    assert rotate("blocks/mlp_norm/scale", leaf) is None


@pytest.mark.slow
@pytest.mark.parametrize("base", ["sgd", "muon"])
def test_text_runs_at_several_rates_and_seeds_equal_separate_ones(base):
    together = Language(base, 30, (-4, -3), (0, 1)).execute(None)
    alone = Language(base, 30, (-3,), (1,)).execute(None)
    for name in ("choice", "loss"):
        assert np.shape(together[name]) == (2, 2)
        assert together[name][1][1] == pytest.approx(alone[name][0][0], rel=1e-3)
    # A byte has 256 values.
    assert np.max(together["loss"]) < np.log(256)


def test_rates_are_chosen_by_held_out_images_and_then_compared(tmp_path):
    cell = tangent.CELLS["laptop"][0]
    log = Log("laptop", "tangent", tmp_path)
    for name in cell.variants():
        for power, runs in zip(cell.powers, tangent.candidates(cell, name), strict=True):
            for run in runs:
                # Held-out images choose 3^-2 without the projection and 3^-3 with it; test images would not.
                best = -2 if name == "without" else -3
                curves = {"validation_accuracy": [1 - abs(power - best) / 10], "test_accuracy": [-power / 10]}
                log.append({"config": run.fields(), "test_accuracy": -power / 10, "curves": curves})
    results = Results("laptop", tmp_path)
    assert [tangent.choose(cell, name, results) for name in cell.variants()] == [-3, -2, -3]
    following = tangent.then("laptop", results, False)
    assert experiment("tangent").known(results)[-len(following) :] == following
    assert not any(run.config.validation for run in following)
    # Variants that chose different rates run at both; the geodesic chose that of the projection.
    done = Counter(
        (run.tangent, run.retraction, round(np.log(run.config.learning_rate) / np.log(3)))
        for run in following
    )
    ten = len(tangent.SEEDS)
    assert done == {
        **{(True, "projection", power): ten for power in (-3, -2)},
        **{(False, "projection", power): ten for power in (-3, -2)},
        (True, "geodesic", -3): ten,
    }
    for run in following:
        # At its own rate the projected step is better by a point, at 3^-2 both ways are equal.
        worse = not run.tangent and run.config.learning_rate < 0.05
        accuracy = 0.8 + run.config.seed / 100 - 0.01 * (run.config.learning_rate > 0.05) - 0.02 * worse
        log.append({"config": run.fields(), "test_accuracy": accuracy})
    logged = Results("laptop", tmp_path)
    without, geodesic = cell.pairs()
    ours, margins = tangent.better(cell, without, logged)
    assert ours == "at 3^-3 and 3^-2"
    np.testing.assert_allclose(margins["difference"], np.full(10, 0.01))
    _, margins = tangent.better_at_equal_rates(cell, without, logged)
    np.testing.assert_allclose(margins["at 3^-3"], np.full(10, 0.02))
    np.testing.assert_allclose(margins["at 3^-2"], np.zeros(10), atol=1e-12)
    ours, _ = tangent.better(cell, geodesic, logged)
    assert ours.endswith("it does not matter")
    assert list(tangent.better_at_equal_rates(cell, geodesic, logged).margins) == ["at 3^-3"]


def test_the_peak_of_a_parabola():
    powers = np.array(rates.POWERS)
    assert rates.peak(3 - (powers + 3.3) ** 2) == pytest.approx(-3.3)
    assert np.isnan(rates.peak(powers))


def test_steps_count_whole_batches():
    assert [rates.steps_of("mnist5k-mlp", length) for length in rates.LENGTHS["mnist5k-mlp"]] == [
        96,
        400,
        1600,
        6400,
    ]
    assert {rates.steps_of("mnist5k-mlp", length) for length in rates.BATCHES["mnist5k-mlp"]} == {384, 400}


@pytest.mark.slow
def test_a_variant_trains_and_its_flags_are_logged():
    found = line(variant("mnist5k-mlp", "muon", -3, 0, epochs=1, tangent=False), None)
    assert found["config"]["program"] == "variant"
    assert (found["config"]["base"], found["config"]["tangent"]) == ("muon", False)
    assert found["test_accuracy"] > 0.1
