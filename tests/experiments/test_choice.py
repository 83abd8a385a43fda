"""Tests the choice of learning rates by held-out images."""

import pytest

import train
from experiments import choice, fig7
from experiments.log import Log
from experiments.presets import PRESETS
from experiments.results import Results


def logged_choice(folder, task, held_out, tested, trained=None):
    """Logs, at each of Figure 7's rates, a run of one seed with these accuracies per epoch."""
    trained = trained or [[1.0] * len(curve) for curve in held_out]
    found = zip(fig7.candidates(task), held_out, tested, trained, strict=True)
    for (run, *_), *curves in found:
        names = ("validation_accuracy", "test_accuracy", "train_accuracy")
        named = dict(zip(names, curves, strict=True))
        Log("paper", "fig7", folder).append({"config": run.fields(), "curves": named})
    return Results("paper", folder)


@pytest.mark.parametrize(("task", "counts"), [("c10-cnn1", (2, 0.5)), ("tiny-cnn", (1, 0.9))])
def test_figure_7_chooses_and_plots_the_same_epoch(task, counts, tmp_path):
    # Rate 1 has the best epoch, its first (0.8 held out, 0.9 tested); rate 2 has the best last epoch.
    held_out = [[0.1, 0.2], [0.8, 0.3], [0.4, 0.5], *[[None, 0.1]] * 7]
    tested = [[0.1, 0.2], [0.9, 0.3], [0.4, 0.5], *[[None, 0.1]] * 7]
    results = logged_choice(tmp_path, task, held_out, tested)
    assert fig7.choose(task, results) == fig7.powers(task)[counts[0]]
    found = choice.accuracies("test_accuracy", fig7.candidates(task), results)
    assert found[counts[0], 0] == counts[1]


def test_equal_rates_are_chosen_by_their_neighbours_and_not_by_order(tmp_path):
    accuracies = [0.1, 0.5, 0.2, 0.3, 0.5, 0.4, 0.1, 0.1, 0.1, 0.1]
    curves = [[value] for value in accuracies]
    powers = fig7.powers("c10-cnn1")
    for folder, expected, found in ((tmp_path / "1", 4, curves), (tmp_path / "2", 5, curves[::-1])):
        results = logged_choice(folder, "c10-cnn1", found, found)
        assert fig7.choose("c10-cnn1", results) == powers[expected]


@pytest.mark.parametrize(("highest", "expected"), [(1.0, 4), (0.97, 7)])
def test_rates_that_do_not_fit_the_training_images_are_chosen_only_if_none_does(highest, expected, tmp_path):
    held_out = [[value] for value in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.2, 0.1)]
    trained = [[min(value, highest)] for value in (0.5, 0.9, 1.0, 1.0, 0.98, 0.97, 0.9, 0.6, 0.5, 0.1)]
    results = logged_choice(tmp_path, "c10-cnn1", held_out, held_out, trained)
    assert fig7.choose("c10-cnn1", results) == fig7.powers("c10-cnn1")[expected]


def test_rates_are_chosen_by_1000_images_or_by_several_seeds():
    for preset in PRESETS:
        for task in dict.fromkeys(run.task() for run in fig7.runs(preset)):
            row = train.TASKS[task]
            seeds = choice.seeds_of(task)
            assert len(seeds) >= 3 or row.train_size - row.num_training_images(True) >= 1000
            assert {run.config.learning_rate for run in fig7.runs(preset) if run.config.layca} >= {3**-3}
