"""Tests train.py from the command line to its files: short runs, resuming, overwriting."""

import json
import re
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
from command import SHORT, command

import train
from training.checkpoints import Checkpoints
from training.config import Flags
from training.optimizer import DIRECTIONS, Hyperparameters
from training.tasks import TASKS


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_from_the_command_line(tmp_path, capsys):
    assert command(*SHORT, "--seed", 1, "--out", tmp_path / "run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"test accuracy 0\.\d{4}", lines[-1])
    table = [line.split() for line in lines if line.startswith("layers/")]
    assert [name for name, _ in table] == [f"layers/{i}/kernel" for i in range(11)]
    logged = records(tmp_path / "run")
    assert [record["epoch"] for record in logged] == [1, 2]
    for record in logged:
        assert list(record) == [
            "epoch",
            "train_loss",
            "train_accuracy",
            "test_accuracy",
            "seconds",
            "rotation",
            "skipped",
            "device",
            "matmul_precision",
        ]
        assert list(record["rotation"]) == [f"layers/{i}/kernel" for i in range(11)]
    assert f"test accuracy {logged[-1]['test_accuracy']:.4f}" == lines[-1]
    assert logged[-1]["rotation"]["layers/10/kernel"] == pytest.approx(float(table[-1][1]), abs=1e-4)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["task"] == "mnist5k-mlp"
    assert config["learning_rate"] == 3**-3
    assert config["epochs"] == 2
    assert (tmp_path / "run" / "rotation.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "run" / "checkpoint").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("with_layca", [True, False])
@pytest.mark.parametrize("optimizer", DIRECTIONS)
def test_every_optimizer_learns(optimizer, with_layca):
    config = Flags(optimizer=optimizer, layca=with_layca, epochs=3).resolved()
    history = [record for _, record in train.fit(config, TASKS[config.task].load(seed=0), evaluate_every=3)]
    assert history[-1]["train_loss"] < 0.8 * history[0]["train_loss"]
    assert history[-1]["test_accuracy"] > 0.5


def test_layca_turns_all_layers_alike_and_alpha_slows_some():
    data = TASKS["mnist5k-mlp"].load(seed=0)

    def turned(alpha):
        *_, (_, record) = train.fit(Flags(alpha=alpha, epochs=2).resolved(), data)
        return np.array(list(record["rotation"].values()))

    together, last_first, first_first = turned(0.0), turned(0.6), turned(-0.6)
    assert together[:-1].max() < 2 * together[:-1].min()
    assert last_first[0] < 0.01 * last_first[-1]
    assert first_first[-1] < 0.01 * first_first[0]


def test_runs_with_other_hyperparameters_and_seeds_compile_nothing_new(caplog):
    compiled = []
    for seed, numbers in enumerate([(0.1, 0.0, 0.0), (0.2, 0.3, 0.1)]):
        config = Flags(batch_size=512, epochs=1, seed=seed).resolved()
        config = replace(config, **dict(zip(Hyperparameters._fields, numbers, strict=True)))
        with jax.log_compiles(), caplog.at_level("WARNING", logger="jax"):
            list(train.fit(config, TASKS[config.task].load(seed=seed)))
        compiled.append(sum("Finished XLA compilation" in message for message in caplog.messages))
        caplog.clear()
    assert compiled[0] > 0
    assert compiled[1] == 0


def test_describe_needs_no_data(capsys, monkeypatch):
    monkeypatch.setattr("data.mnist5k.pictures", None)
    assert command("--task", "mnist-mlp", "--describe", "--alpha", "0.3") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "6,154,400 parameters" in lines[-1]
    assert [line.split()[0] for line in lines[1:-1]] == [f"layers/{i}/kernel" for i in range(11)]
    rates = [float(line.split()[-1]) for line in lines[1:-1]]
    np.testing.assert_allclose(rates, [3**-3 * 0.7 ** (5 * (10 - i) / 10) for i in range(11)], rtol=1e-3)


def test_weight_decay_without_effect_is_reported(tmp_path, capsys):
    assert command(*SHORT, "--weight-decay", 1e-3, "--out", tmp_path / "a") == 0
    assert "no effect" in capsys.readouterr().out


def test_an_interrupted_run_resumes_bit_for_bit(tmp_path, finished):
    """Removes the second of two states, which leaves what an interrupted run leaves."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    shutil.rmtree(folder / "checkpoint" / "2")
    assert command("--resume", "--out", folder) == 0
    without_clock = lambda path: [{**record, "seconds": 0} for record in records(path)]
    assert without_clock(folder) == without_clock(finished)
    devices = train.all_devices()
    program = train.compile_program(Flags(batch_size=512, epochs=2).resolved(), devices)
    like = devices.abstract(jax.eval_shape(program.init, np.uint32(0), Hyperparameters(0.1, 0.0, 0.0)))
    restored = []
    for path in (folder, finished):
        with Checkpoints(path / "checkpoint") as checkpoints:
            restored.append(checkpoints.restore(2, like))
    for a, b in zip(*map(jax.tree.leaves, restored), strict=True):
        np.testing.assert_array_equal(a, b)


def test_resuming_a_finished_run_prints_its_last_line_again(tmp_path, finished, capsys):
    before = records(finished)
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    assert command("--resume", "--out", folder) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"test accuracy {before[-1]['test_accuracy']:.4f}"
    assert records(folder) == before


def test_resume_without_a_finished_checkpoint_starts_over(tmp_path, finished, capsys):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    shutil.rmtree(folder / "checkpoint")
    assert command("--resume", "--out", folder) == 0
    assert [record["epoch"] for record in records(folder)] == [1, 2]
    assert command(*SHORT, "--resume", "--out", tmp_path / "new") == 0


def test_overwrite_replaces_a_run(tmp_path, finished):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    assert command("--epochs", "1", "--batch-size", "512", "--overwrite", "--out", folder) == 0
    assert len(records(folder)) == 1
    assert json.loads((folder / "config.json").read_text())["epochs"] == 1


def test_the_default_folder_is_new_and_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "001-mnist5k-mlp").mkdir(parents=True)
    assert command(*SHORT) == 0
    assert (tmp_path / "runs" / "002-mnist5k-mlp" / "metrics.jsonl").exists()
