"""Tests the rule for verdicts, and the pairing of runs by seed."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from experiments import fig2, rotation_accuracy
from experiments.claims import Claim, Finding, described, interval, judged, slope, verdict
from experiments.log import Log
from experiments.presets import Setup
from experiments.results import MissingRunError, Results
from experiments.runs import training

UP, DOWN = np.array([1.0, 1.1, 0.9, 1.2, 1.0]), -np.array([1.0, 1.1, 0.9, 1.2, 1.0])
BOTH = np.array([1.0, -1.1, 0.9, -1.2, 0.3])


def test_an_interval_is_that_of_all_resamples_of_five_seeds():
    values = np.random.default_rng(0).normal(size=5)
    means = [np.mean(resample) for resample in product(values, repeat=5)]
    # 5/4 of the variance's denominator, and Student's quantile for 4 degrees of freedom.
    tail = stats.norm.cdf(-np.sqrt(5 / 4) * 2.7764451)
    np.testing.assert_allclose(interval(values), np.quantile(means, [tail, 1 - tail]), atol=0.05)
    assert interval(values) == interval(values)


def test_intervals_of_five_values_cover_the_mean_in_about_95_percent():
    values = np.random.default_rng(1).normal(size=(400, 5))
    ends = np.array([interval(row) for row in values])
    assert np.mean((ends[:, 0] <= 0) & (ends[:, 1] >= 0)) > 0.89


@pytest.mark.parametrize(
    ("margins", "expected"),
    [
        ([UP], "shows"),
        ([UP, UP], "shows"),
        ([UP, BOTH], "shows in part"),
        ([UP, DOWN], "shows in part"),
        ([DOWN], "reversed"),
        ([DOWN, BOTH], "reversed"),
        ([BOTH], "not resolved with 5 seeds"),
        ([UP[:4]], "not resolved with 4 seeds"),
        ([UP, UP[:1]], "not resolved with 1 seed"),
        ([UP[:0]], "not resolved with 0 seeds"),
        ([], "not resolved with 0 seeds"),
    ],
)
def test_verdicts_follow_the_rule(margins, expected):
    assert verdict({str(i): values for i, values in enumerate(margins)}) == expected


def test_a_margin_has_an_error_and_an_interval_if_there_are_enough_seeds():
    assert described("rise", UP[:4]) == "rise +1.1"
    assert described("rise", UP[:0]) == "rise"
    # The standard deviation is .114; divided by the root of five it is .051.
    assert described("rise", UP).startswith("rise +1 ± 0.05 [0.9")


def test_slopes_per_seed():
    positions = [1, 2, 4]
    values = np.array([[2 * x + 1, -x] for x in positions])
    np.testing.assert_allclose(slope(values, positions), [2, -1])


def logged(folder, accuracies, layca):
    """Logs runs in the reverse order of their seeds."""
    for seed, accuracy in reversed(list(accuracies.items())):
        run = training(task="mnist5k-mlp", seed=seed, layca=layca)
        Log("laptop", "fig2", folder).append({"config": run.fields(), "test_accuracy": accuracy})


def sides():
    return [
        [training(task="mnist5k-mlp", seed=seed, layca=layca) for seed in range(7)] for layca in (True, False)
    ]


def test_sides_are_paired_by_seed_and_missing_or_diverged_runs_left_out(tmp_path):
    logged(tmp_path, {0: 0.9, 1: 0.7, 2: 0.8, 3: 0.6, 4: 0.5, 6: 0.4}, layca=True)
    logged(tmp_path, {0: 0.89, 1: 0.68, 2: 0.79, 3: 0.58, 5: 0.5, 6: None}, layca=False)
    first, second = Results("laptop", tmp_path).paired(sides())
    np.testing.assert_allclose(first, [0.9, 0.7, 0.8, 0.6])
    np.testing.assert_allclose(first - second, [0.01, 0.02, 0.01, 0.02], atol=1e-9)


def test_without_any_pair_the_error_names_a_run(tmp_path):
    logged(tmp_path, {0: 0.9}, layca=True)
    logged(tmp_path, {1: 0.9}, layca=False)
    with pytest.raises(MissingRunError, match=r'"layca": false.*"seed": 0'):
        Results("laptop", tmp_path).paired(sides())


def test_a_claim_is_judged_by_its_margins():
    claim = Claim("It rises", "yes", lambda results: Finding("up", {"rise": UP}))
    ours, found = judged(claim, None)
    assert ours.startswith("up; rise +1 ± 0.05 [")
    assert found == "shows"


def line_with(seed, distances, accuracy, train_accuracy=1.0):
    """Returns a logged line whose layers ended at these distances."""
    curves = {"train_accuracy": [train_accuracy], "rotation": {str(i): [d] for i, d in enumerate(distances)}}
    config = {"task": "mnist5k-mlp", "seed": seed, "learning_rate": len(distances) + accuracy}
    return {"config": config, "test_accuracy": accuracy, "curves": curves}


def test_rank_correlations_are_spearmans_per_seed_over_trained_runs(tmp_path):
    rng = np.random.default_rng(0)
    points = {seed: rng.uniform(size=(10, 3)) for seed in (0, 1)}
    # Seed 2 has too few runs; seed 0 also has one that is not trained and one that diverged.
    points[2] = rng.uniform(size=(3, 3))
    lines = [line_with(seed, row[:2], row[2]) for seed, rows in points.items() for row in rows]
    lines += [line_with(0, [0.9, 0.9], 0.1, train_accuracy=0.9), line_with(0, [None, 0.9], 0.2)]
    for line in lines:
        Log("laptop", "fig2", tmp_path).append(line)
    ours, parts = rotation_accuracy.predicts(Setup("mnist5k-mlp"), Results("laptop", tmp_path))
    assert ours.startswith("rank correlation over 23 runs")
    for name, position in (("mean", lambda row: row[:2].mean()), ("smallest", lambda row: row[:2].min())):
        expected = [
            stats.spearmanr([position(row) for row in points[seed]], points[seed][:, 2]).statistic
            for seed in (0, 1)
        ]
        np.testing.assert_allclose(parts[name], expected)


@pytest.mark.parametrize(("train_accuracy", "shown"), [(1.0, 1), (0.9, 2)])
def test_a_task_without_trained_runs_is_left_out_of_the_scatter(train_accuracy, shown, tmp_path):
    for task in ("mnist5k-mlp", "mnist5k-vgg"):
        line = line_with(0, [0.1, 0.2], 0.9, train_accuracy if task == "mnist5k-mlp" else 0.9)
        Log("laptop", "fig2", tmp_path).append(
            {**line, "config": {**line["config"], "task": task, "layca": True}}
        )
    figure = rotation_accuracy.draw("laptop", Results("laptop", tmp_path))
    figure.draw_without_rendering()
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == ["mnist5k-mlp", "mnist5k-vgg"][:shown] * len(rotation_accuracy.SUMMARIES)


@pytest.mark.parametrize("claim", [fig2.uniform_is_best, fig2.first_layers_beat_last])
def test_runs_under_98_percent_are_told_from_missing_ones(claim, tmp_path):
    setup = Setup("mnist5k-mlp", (0,), (-0.4, 0.0, 0.4))
    for alpha, train_accuracy in ((0.0, 1.0), (0.4, 0.9), (-0.4, 0.9)):
        with pytest.raises(MissingRunError):
            claim(setup, Results("laptop", tmp_path))
        run = training(task="mnist5k-mlp", seed=0, layca=True, alpha=alpha)
        line = {"config": run.fields(), "test_accuracy": 0.9, "curves": {"train_accuracy": [train_accuracy]}}
        Log("laptop", "fig2", tmp_path).append(line)
    ours, margins = claim(setup, Results("laptop", tmp_path))
    assert ours == "no pair reaches 98 %; 2 of 3 runs stay under 98 %, at 0.90 or more"
    assert margins == {}
