"""Tests that long runs continue after an interruption, and that logs name the data and the device."""

import os
import signal
from dataclasses import dataclass
from types import SimpleNamespace

import jax
import pytest

from data import DataError
from data.dataset import Source
from experiments import runs, work
from experiments.__main__ import draw, listing
from experiments.adaptivity import Shares
from experiments.fig2 import runs as fig2_runs
from experiments.log import Log
from experiments.results import Results
from experiments.runs import Training, training, unfinished
from experiments.summary import summary
from experiments.work import finish, line, prepare_device
from training.parallel import place
from training.run import Interrupted

FLAGS = {"task": "mnist5k-mlp", "epochs": 4}
JPEG = Source("CIFAR-10, JPEG 75", "JPEG", 75, 50_000, 10_000, "ab" * 32)


@pytest.fixture
def long(monkeypatch, tmp_path):
    """Treats every run as a long one."""
    monkeypatch.setattr(runs, "LONG", 0)
    monkeypatch.setattr(runs, "UNFINISHED", tmp_path / "unfinished")
    return tmp_path


@dataclass(frozen=True)
class Ended(Training):
    """A run that records its steps, and that is asked to end when it first reaches an epoch."""

    epoch: int
    trained: list

    def execute(self, data_dir):
        def look(state):
            self.trained.append(int(state.step))
            if len(self.trained) == self.epoch:
                os.kill(os.getpid(), signal.SIGTERM)
            return {}

        return self.summary(self.records(data_dir, 1, look), data_dir)

    def fields(self):
        return {**Training(self.config).fields(), "program": "ended"}


@pytest.mark.slow
def test_an_interrupted_run_continues_and_is_logged_like_an_uninterrupted_one(long, monkeypatch):
    config = training(**FLAGS).config
    with monkeypatch.context() as short:
        short.setattr(runs, "LONG", 1e9)
        whole = line(Ended(config, 100, []), None)
    run = Ended(config, 2, [])
    log = Log("laptop", "fig2", long)
    message = "after epoch 2 of 4, saved after epoch 2; to go on: the same command"
    with pytest.raises(Interrupted, match=message):
        finish(log, [run], Results("laptop", long))
    assert unfinished(run).is_dir()
    assert log.read() == {}
    finish(log, [run], Results("laptop", long))
    (found,) = log.read().values()
    assert run.trained == [8, 16, 24, 32]
    assert {**found, "seconds": 0} == {**whole, "seconds": 0}
    # The seconds of both processes count.
    assert found["seconds"] > 0
    assert not unfinished(run).exists()


@pytest.mark.slow
def test_extra_fields_of_records_survive_in_a_long_run(long, monkeypatch):
    config = training(**FLAGS, optimizer="adam", layca=False).config
    found = line(Shares(config), None)
    monkeypatch.setattr(runs, "LONG", 1e9)
    short = line(Shares(config), None)
    assert len(found["between_layers"]) == 4
    assert {**found, "seconds": 0} == {**short, "seconds": 0}


@pytest.mark.slow
def test_short_runs_leave_no_files(monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "UNFINISHED", tmp_path / "unfinished")
    run = training(task="mnist5k-mlp", epochs=1)
    finish(Log("laptop", "fig2", tmp_path), [run], Results("laptop", tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["laptop"]


@pytest.mark.slow
def test_a_line_names_the_device_the_precision_and_the_data(monkeypatch):
    run = training(task="mnist5k-mlp", epochs=1)
    found = line(run, None)
    assert (found["device"], found["matmul_precision"]) == ("cpu", "float32")
    assert "data" not in found
    placed = runs.load(run.config, None)
    monkeypatch.setattr(runs, "load", lambda config, data_dir: placed._replace(source=JPEG))
    assert line(run, None)["data"] == JPEG._asdict()


def test_runs_on_other_data_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "load", lambda config, data_dir: SimpleNamespace(source=JPEG))
    old, new = training(task="c10-cnn1", seed=0), training(task="c10-cnn1", seed=1)
    log = Log("paper", "fig2", tmp_path)
    log.append({"config": old.fields(), "data": {**JPEG._asdict(), "name": "CIFAR-10"}})
    before = log.path.read_bytes()
    message = "logs of c10-cnn1 on CIFAR-10, and the data here are CIFAR-10, JPEG 75"
    with pytest.raises(DataError, match=message):
        finish(log, [new], Results("paper", tmp_path))
    assert log.path.read_bytes() == before


@pytest.mark.slow
def test_runs_that_share_data_place_them_once(monkeypatch):
    runs._load.cache_clear()
    placed = []
    monkeypatch.setattr(runs, "place", lambda *arguments: placed.append(arguments) or place(*arguments))
    for rate in (0.01, 0.02):
        line(training(task="mnist5k-mlp", epochs=1, learning_rate=rate), None)
    assert len(placed) == 1
    line(training(task="mnist5k-mlp", epochs=1, validation=True), None)
    assert len(placed) == 2


@pytest.mark.parametrize(("backend", "cached"), [("gpu", True), ("cpu", False)])
def test_processes_share_a_device_and_compiled_programs(backend, cached, monkeypatch):
    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE", raising=False)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    before = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        prepare_device()
        folder = jax.config.jax_compilation_cache_dir
        assert folder == (str(work.COMPILED) if cached else None)
        assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
        # A folder that the user has chosen is kept.
        jax.config.update("jax_compilation_cache_dir", "elsewhere")
        prepare_device()
        assert jax.config.jax_compilation_cache_dir == "elsewhere"
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        os.environ.pop("XLA_PYTHON_CLIENT_PREALLOCATE", None)


def logged(folder, run, seconds, epochs, **more):
    curves = {"train_loss": [1.0] * epochs, "train_accuracy": [1.0] * epochs, "test_accuracy": [0.5] * epochs}
    curves["rotation"] = {"layers/0/kernel": [0.1] * epochs}
    line = {"config": run.fields(), "seconds": seconds, "test_accuracy": 0.5, "curves": curves, **more}
    Log("paper", "fig2", folder).append(line)


def minutes(name, folder):
    _, row, *_ = listing([name], Results("paper", folder)).splitlines()
    return float(row.split()[4])


def test_list_estimates_minutes_from_logged_epochs(tmp_path):
    c10 = [run for run in fig2_runs("paper") if run.config.task == "c10-cnn1"]
    # Five runs wait 10, 20, 40, 80 and 160 epochs and take 20 more, with Layca and without.
    epochs = 2 * (310 + 5 * 20)
    assert minutes("plateau-length", tmp_path) == pytest.approx(epochs * 15 / 60, abs=0.1)
    # This run stopped early, after 2 seconds per epoch.
    logged(tmp_path, c10[0], seconds=20.0, epochs=10)
    assert minutes("plateau-length", tmp_path) == pytest.approx(epochs * 2 / 60, abs=0.1)


def test_tables_and_figures_name_a_copy_of_the_data(tmp_path):
    for run in {str(run.fields()): run for run in fig2_runs("paper")}.values():
        logged(tmp_path, run, 1.0, 2, data=JPEG._asdict() if run.task() == "c10-cnn1" else {"name": "other"})
    results = Results("paper", tmp_path)
    name = "c10-cnn1: CIFAR-10, JPEG 75"
    assert summary(results).splitlines()[-1].startswith(f"Data: {name}; c100-resnet: other")
    assert results.data(["unknown"]) == ""
    # Data that all runs share are named once.
    assert results.data(key for key in results if "c10-cnn1" in key) == "CIFAR-10, JPEG 75"
    draw("fig2", results, tmp_path / "figures" / "fig2.png")
    assert (tmp_path / "figures" / "fig2.png").exists()
