"""Tests the runs, figures and claims of all experiments, and the command line."""

import json
import shutil
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest

import train
from experiments import choice, fig2, fig7, first, toy, tuned
from experiments.__main__ import NAMES, main
from experiments.experiment import FIRST, experiment, names_of
from experiments.log import RESULTS, Log, key
from experiments.presets import PRESETS, SECTION5, SECTION6
from experiments.results import MissingRunError, Results
from experiments.runs import Training, config_key, training
from experiments.summary import glance, summary
from experiments.variants import Language

README = Path(train.__file__).parent / "experiments" / "README.md"


def line(run):
    """Returns a log line for a run, with arbitrary values that differ between runs."""
    rng = np.random.default_rng(zlib.crc32(config_key(run).encode()))
    found = {"config": run.fields(), "seconds": 1.0, "test_accuracy": float(rng.uniform(0.5, 1))}
    epochs = run.fields().get("epochs", 1)
    if isinstance(run, Language):
        shape = len(run.powers), len(run.seeds)
        return {**found, "choice": rng.uniform(size=shape).tolist(), "loss": rng.uniform(size=shape).tolist()}
    if not isinstance(run, Training):
        return {**found, "silhouette": rng.uniform(size=51).tolist()}
    looked = [0.5 if epoch % 5 == 4 or epoch == epochs - 1 else None for epoch in range(epochs)]
    curves = {"train_loss": rng.uniform(size=epochs).tolist(), "train_accuracy": [1.0] * epochs}
    curves |= {"test_accuracy": looked, "validation_accuracy": looked}
    curves["rotation"] = {f"layers/{i}/kernel": rng.uniform(0, 1, epochs).tolist() for i in range(3)}
    return {**found, "curves": curves, "between_layers": [1.0] * epochs, "inside_layers": [2.0] * epochs}


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Returns a folder with logs of all runs of preset laptop."""
    folder = tmp_path_factory.mktemp("results")
    fill(folder, "laptop", lambda i, run: line(run))
    return folder


def fill(folder, preset, line_of):
    """Logs `line_of` all runs of a preset, including those at chosen rates."""
    for name in [name for name in names_of(preset) for _ in range(2)]:
        results = Results(preset, folder)
        missing = {config_key(run): run for run in experiment(name).known(results)}
        for i, (number, run) in enumerate(missing.items()):
            if number not in results:
                Log(preset, experiment(name).log, folder).append(line_of(i, run))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", NAMES)
def test_runs_have_known_tasks_and_distinct_keys(name, preset):
    if preset not in experiment(name).presets:
        return
    runs = experiment(name).runs(preset)
    assert runs or name in ("fig6", "rotation-accuracy")
    keys = [config_key(run) for run in runs]
    assert len(set(keys)) == len(keys)
    assert {run.task() for run in runs} <= {*train.TASKS, "text"}


@pytest.mark.parametrize("name", NAMES)
def test_figures_and_claims_come_from_logs_alone(name, full):
    module, results = experiment(name), Results("laptop", full)
    assert module.draw("laptop", results).axes
    for claim in module.claims("laptop"):
        ours, parts = claim.measure(results)
        assert ours
        assert parts
        assert all(len(values) >= 3 for values in parts.values())
        assert "|" not in claim.text + claim.paper + ours


def test_finished_runs_are_not_repeated_and_figures_are_reproducible(full, tmp_path, capsys):
    logs = {path: path.read_bytes() for path in full.rglob("*.jsonl")}
    drawn = []
    for figures in (tmp_path / "1", tmp_path / "2"):
        assert main(["fig1a"], full, figures) == 0
        drawn.append((figures / "laptop" / "fig1a.png").read_bytes())
    assert drawn[0] == drawn[1]
    assert {path: path.read_bytes() for path in full.rglob("*.jsonl")} == logs


def diverged(found):
    """Returns the line of a run that diverges in its second epoch."""
    found = {**found, "test_accuracy": None}
    if "curves" in found:
        rotation = {layer: [0.1, None] for layer in found["curves"]["rotation"]}
        curves = {name: [values[0], None] for name, values in found["curves"].items() if name != "rotation"}
        found |= {"curves": {**curves, "rotation": rotation}, "between_layers": [1.0, None]}
    return found


@pytest.mark.parametrize("preset", [pytest.param("laptop", marks=pytest.mark.slow), "small"])
@pytest.mark.parametrize("every", [1, 3])
def test_tables_and_figures_work_with_diverged_runs(every, preset, tmp_path):
    def line_of(i, run):
        return diverged(line(run)) if i % every == 0 and isinstance(run, Training) else line(run)

    fill(tmp_path, preset, line_of)
    table = summary(Results(preset, tmp_path))
    assert "nan" not in table
    assert "without runs" not in table
    for name in names_of(preset):
        assert experiment(name).draw(preset, Results(preset, tmp_path)).axes


def test_a_missing_run_is_named(full, tmp_path, capsys):
    shutil.copytree(full, tmp_path / "results")
    log = Log("laptop", "fig1a", tmp_path / "results")
    first, *rest = log.path.read_text().splitlines(keepends=True)
    log.path.write_text("".join(rest))
    assert main(["fig1a", "--draw"], tmp_path / "results", tmp_path / "figures") == 2
    assert key(json.loads(first)["config"]) in capsys.readouterr().err
    assert not (tmp_path / "figures").exists()


def test_all_experiments_are_found_in_the_order_of_the_paper():
    # All names of the order exist; the only one that is not named there comes last.
    assert (*FIRST, "rotation-accuracy") == NAMES


def test_a_missing_gpu_is_reported_before_any_file_is_written(tmp_path, monkeypatch, capsys):
    def fail():
        raise RuntimeError("no driver")

    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "devices", fail)
    assert main(["fig1a"], tmp_path / "results", tmp_path / "figures") == 1
    assert "no GPU found (no driver); pip install" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_typo_suggests_the_nearest_name(capsys):
    assert main(["plateau-lenght"]) == 2
    assert "Did you mean plateau-length?" in capsys.readouterr().err


@pytest.mark.parametrize("preset", PRESETS)
def test_list_counts_the_runs(preset, tmp_path, capsys):
    assert main(["all", "--list", "--preset", preset], tmp_path) == 0
    names = names_of(preset)
    rows = capsys.readouterr().out.splitlines()[1 : len(names) + 1]
    for name, row in zip(names, rows, strict=True):
        listed, log, runs, done, *_ = row.split()
        assert (listed, log, done) == (name, experiment(name).log, "0")
        assert int(runs) == len(experiment(name).known(Results(preset, tmp_path), guess=True))


def minutes_of(listed):
    """Returns the minutes that `--list` prints, by name."""
    rows = [row.split() for row in listed.splitlines()]
    return {row[0]: float(row[4]) for row in rows if row[0] in NAMES}


def test_the_laptop_preset_takes_at_most_three_hours_and_a_figure_45_minutes(tmp_path, capsys):
    main(["all", "--list"], tmp_path)
    minutes = minutes_of(capsys.readouterr().out)
    assert minutes.pop("rates") <= 120
    assert sum(minutes.values()) <= 180
    assert max(minutes.values()) <= 45


def test_the_small_preset_has_five_seeds_and_takes_at_most_sixteen_hours_of_a_core(tmp_path, capsys):
    main(["all", "--list", "--preset", "small"], tmp_path)
    minutes = minutes_of(capsys.readouterr().out)
    # These two have separate budgets of six and three hours for both presets together.
    assert minutes.pop("tangent") <= 5 * 60
    assert minutes.pop("rates") <= 60
    assert sum(minutes.values()) <= 16 * 60
    for part in (*SECTION5["small"], *SECTION6["small"]):
        assert len(part.runs()) == 5
    assert len(tuned.SEEDS) == 5


def test_the_most_telling_runs_of_small_come_first_and_in_pairs():
    begun = [run.config for run in first.runs("small")[:6]]
    sides = [("sgd", True), ("sgd", False), ("adam", False)]
    assert [(c.task, c.seed, c.optimizer, c.layca) for c in begun] == [
        ("cifar16-vgg25", seed, *side) for seed in (0, 1) for side in sides
    ]
    assert {config_key(run) for run in tuned.runs("small")} <= {
        config_key(run) for run in first.runs("small")
    }


def test_an_experiment_that_a_preset_lacks_is_refused(capsys):
    assert main(["fig1a", "--preset", "small"]) == 2
    assert "preset small has no fig1a" in capsys.readouterr().err


def test_tuned_methods_have_the_rates_that_the_logs_choose():
    for preset, task in tuned.TASKS.items():
        results = Results(preset, RESULTS)
        for method, power in tuned.CHOSEN[task].items():
            assert tuned.choose(task, method, results) == power


@pytest.mark.parametrize("name", ["fig1c", "projection"])
def test_dry_run_traces_every_program(name, capsys):
    assert main([name, "--dry-run"]) == 0
    programs = {run.program() for run in experiment(name).runs("laptop")}
    assert len(capsys.readouterr().out.splitlines()) == len(programs)


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_dry_run_of_everything(preset, capsys):
    assert main(["all", "--dry-run", "--preset", preset]) == 0


@pytest.mark.parametrize("preset", ["laptop", "small"])
def test_no_run_is_in_two_logs_and_an_experiment_asks_for_each(preset):
    names = {path.stem for path in (RESULTS / preset).glob("*.jsonl")}
    runs = [name for name in names for _ in Log(preset, name).read()]
    results = Results(preset, RESULTS)
    assert len(runs) == len(results)
    known = [config_key(run) for name in names_of(preset) for run in experiment(name).known(results)]
    assert results.keys() <= set(known)


@pytest.mark.parametrize("preset", ["laptop", "small"])
def test_figure_2_has_the_learning_rates_that_figure_7_chooses(preset):
    results = Results(preset, RESULTS)
    for task in dict.fromkeys(run.task() for run in fig7.runs(preset)):
        try:
            best = fig7.choose(task, results)
        except MissingRunError:
            continue
        assert 3.0**best == train.TASKS[task].rates["sgd"]
        tested = choice.accuracies("test_accuracy", fig7.candidates(task), results).mean(axis=1)
        assert fig7.powers(task)[tested.argmax()] == fig2.BEST_ON_TEST.get(task, best)


@pytest.mark.parametrize(("task", "evaluations"), [("c10-cnn2", 250), ("tiny-cnn", 80), ("mnist5k-vgg", 7)])
def test_the_papers_tasks_evaluate_after_every_epoch_and_small_tasks_about_six_times(
    task, evaluations, monkeypatch
):
    run = training(task=task)
    seen = []
    monkeypatch.setattr(Training, "records", lambda self, data_dir, every: seen.append(every))
    monkeypatch.setattr(Training, "summary", lambda self, records, data_dir: {})
    run.execute(None)
    epochs = run.config.epochs
    assert sum(epoch in (1, epochs) or epoch % seen[0] == 0 for epoch in range(1, epochs + 1)) == evaluations


def test_the_toy_of_the_papers_preset_takes_all_steps_and_tests_5000_images_every_epoch():
    # Section 3: 4,000 steps; A.1: 500 epochs.
    assert {(run.until_loss, toy.STEPS) for run in experiment("fig1a").runs("paper")} == {(0.0, 4000)}
    assert {(run.every, run.test_images) for run in experiment("fig1b").runs("paper")} == {(1, 5000)}


@pytest.fixture(scope="module")
def tables():
    """Returns the lines of both presets' tables of claims, from the logs of the repository."""
    return {preset: summary(Results(preset, RESULTS)) for preset in ("laptop", "small")}


def test_the_readme_has_the_tables_of_the_logs(tables):
    readme = README.read_text()
    assert glance([Results(preset, RESULTS) for preset in tables]) in readme
    assert all(table in readme for table in tables.values())


def test_every_row_has_its_verdict_in_the_table_at_a_glance(tables):
    cells = lambda table: [line.strip("| ").split(" | ") for line in table.splitlines()]
    overview = {text: verdicts for text, *verdicts in cells(glance([Results(p, RESULTS) for p in tables]))}
    for column, (preset, table) in enumerate(tables.items()):
        rows = [row for row in cells(table) if len(row) == 5 and row[1].startswith("`python")]
        assert len(rows) > 10, preset
        for name, *_, verdict in rows:
            text = name if name in overview else name.rpartition(": ")[0]
            parts = dict(part[2:].split("**", 1) for part in overview[text][column].split("; "))
            cases = parts[verdict.partition(" with ")[0]].removeprefix(": ").split(", ")
            assert name.removeprefix(text).removeprefix(": ") in cases, name
