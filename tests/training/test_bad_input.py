"""Tests the message and exit code of bad input, and that no file changes.

Other rows are elsewhere: `layca` in test_layca.py, damaged files and full disks in test_checkpoints.py, batch
sizes that devices cannot share in test_devices.py, damaged datasets in tests/data/test_faults.py.
"""

import json
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from command import command

import layca_optax
import train
from data import DataError, load
from data.augment import augment
from data.files import data_folder
from training.run_folder import RunFolder, new_run_path


def damage_metrics(run):
    (run / "metrics.jsonl").write_text("{\n")


def empty_checkpoints(run):
    for epoch in (1, 2):
        shutil.rmtree(run / "checkpoint" / str(epoch) / "default")


def put_another_networks_checkpoint(run):
    """Declares the run to be of a task whose first layer is wider, as if a checkpoint had been copied."""
    text = (run / "config.json").read_text()
    (run / "config.json").write_text(text.replace('"mnist5k-mlp"', '"mnist-mlp"').replace("512", "96"))


def put_a_folder_for_metrics(run):
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").mkdir()


def edit_metrics(change):
    """Changes the second line of metrics.jsonl."""

    def damage(run):
        first, second = (run / "metrics.jsonl").read_text().splitlines()
        record = json.loads(second)
        change(record)
        (run / "metrics.jsonl").write_text(f"{first}\n{json.dumps(record)}\n")

    return damage


def edit(name, value):
    """Replaces a value in config.json, or removes it."""

    def damage(run):
        stored = json.loads((run / "config.json").read_text())
        stored.pop(name, None)
        if value is not None:
            stored[name] = value[0]
        (run / "config.json").write_text(json.dumps(stored))

    return damage


# Command lines, and a part of the message.
COMMANDS = [
    (["--task", "mnist5k-mpl"], "Did you mean mnist5k-mlp?"),
    (["--optimizer", "adamw"], "Did you mean adam?"),
    (["--learning-rat", "0.1"], "--learning-rate"),
    (["--learning-rate", "fast"], "fast"),
    (["--learning-rate", "-1"], "--learning-rate must be finite, 0 or more"),
    (["--learning-rate", "nan"], "--learning-rate must be finite"),
    (["--alpha", "1.5"], "--alpha must be between -1 and 1, not 1.5"),
    (["--weight-decay", "-0.1"], "--weight-decay"),
    (["--batch-size", "2000"], "between 1 and the 1024 training images"),
    (["--batch-size", "0"], "--batch-size"),
    (["--epochs", "0"], "--epochs must be between 1 and 268435455, not 0"),
    (["--epochs", "9" * 23], "--epochs must be between 1 and 268435455, not 9"),
    (["--seed", "-1"], "--seed"),
    (["--out", "{tmp}/" + "a" * 300], "File name too long"),
    (["--out", "{tmp}/" + "a" * 300, "--resume"], "File name too long"),
    (["--data-dir", "a" * 300], "File name too long"),
    (["--out", "{tmp}/a\0b"], "holds a NUL character"),
    (["--out", "{tmp}/a\0b", "--resume"], "holds a NUL character"),
    (["--data-dir", "no/such/folder"], "no/such/folder is not a folder"),
    (["--resume"], "--resume needs the folder"),
    (["--resume", "--overwrite", "--out", "x"], "give one of them"),
    (["--out", "{tmp}/file"], "is a file, not a folder"),
    (["--out", "{tmp}/file/below"], "is a file, not a folder"),
    (["--out", "{tmp}/others"], "holds files that are no run"),
    (["--out", "{tmp}/others", "--overwrite"], "holds files that are no run"),
    *[
        (["--out", f"{{tmp}}/a{c}b/run"], f"below a folder with {c} in its name; name another")
        for c in "[]*?\\"
    ],
    (["--out", "{tmp}/[a]/run", "--overwrite"], "below a folder with [ ] in its name"),
    (["--out", "{tmp}/run"], "--resume"),
    (["--out", "{tmp}/run", "--resume", "--epochs", "3"], "--epochs was 2, is 3"),
    (["--out", "{tmp}/run", "--resume", "--optimizer", "adam"], "--optimizer was sgd, is adam"),
    (["--out", "{tmp}/damaged", "--resume"], "config.json is not the configuration"),
    (["--distributed"], "--distributed needs a folder that all processes see: --out FOLDER"),
    (["--task", "c10-cnn1", "--data-dir", "{tmp}/file"], "is not a folder"),
    (["--task", "tiny-cnn", "--data-dir", "{tmp}/empty", "--out", "{tmp}/new"], "tiny_imagenet"),
]


@pytest.mark.parametrize(("arguments", "message"), COMMANDS)
def test_bad_command_lines_exit_with_2_and_change_no_file(
    arguments, message, tmp_path, finished, monkeypatch, capsys
):
    assert refused(arguments, finished, tmp_path, monkeypatch, capsys, message) == 2


@pytest.mark.parametrize(
    ("damage", "code", "message"),
    [
        (damage_metrics, 1, "metrics.jsonl is damaged: line 1 is no record"),
        (empty_checkpoints, 1, "none is left: start over with --overwrite"),
        (
            edit_metrics(lambda line: line.pop("rotation")),
            1,
            "Object missing required field `rotation`",
        ),
        (
            edit_metrics(lambda line: line.pop("train_loss")),
            1,
            "Object missing required field `train_loss`",
        ),
        (
            edit_metrics(lambda line: line.update(epoch="2")),
            1,
            "no record: Expected `int`, got `str` - at `epoch`",
        ),
        (edit_metrics(lambda line: line["rotation"].update(x=1.0)), 1, "other layers than line 1"),
        (put_a_folder_for_metrics, 2, "metrics.jsonl is a folder, where a run writes a file"),
        (edit("epochs", ["4"]), 2, "Expected `int`, got `str` - at `epochs`"),
        (edit("epochs", [4.0]), 2, "Expected `int`, got `float` - at `epochs`"),
        (edit("epochs", [[4]]), 2, "Expected `int`, got `array` - at `epochs`"),
        (edit("epochs", [True]), 2, "Expected `int`, got `bool` - at `epochs`"),
        (edit("learning_rate", ["0.1"]), 2, "Expected `float`, got `str` - at `learning_rate`"),
        (edit("task", [None]), 2, "Expected `str`, got `null` - at `task`"),
        (edit("task", [7]), 2, "Expected `str`, got `int` - at `task`"),
        (edit("layca", [1]), 2, "Expected `bool`, got `int` - at `layca`"),
        (edit("data_dir", [5]), 2, "Expected `str | null`, got `int` - at `data_dir`"),
        (edit("data", ["CIFAR"]), 2, "config.json is not the configuration of a run"),
        (edit("seed", None), 2, "Object missing required field `seed`"),
        (edit("colour", ["red"]), 2, "Object contains unknown field `colour`"),
        (put_another_networks_checkpoint, 2, "is the state of another network: params/layers/0/kernel is"),
    ],
)
def test_damaged_runs_are_not_resumed_and_stay_unchanged(
    damage, code, message, tmp_path, finished, monkeypatch, capsys
):
    arguments = ["--out", "{tmp}/run", "--resume"]
    assert refused(arguments, finished, tmp_path, monkeypatch, capsys, message, damage) == code


def refused(arguments, finished, tmp_path, monkeypatch, capsys, message, damage=lambda run: None):
    """Returns the exit code; checks the message, and that all files are unchanged."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "thesis.tex").write_text("mine")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text('{"task": ')
    shutil.copytree(finished, tmp_path / "run")
    damage(tmp_path / "run")
    # The lock is opened, and `.pid` names the last process that did.
    files = lambda: {
        path: path.read_bytes()
        for path in sorted(tmp_path.rglob("*"))
        if path.is_file() and path.name not in (".lock", ".pid")
    }
    before = files()
    code = command(*(argument.format(tmp=tmp_path) for argument in arguments))
    captured = capsys.readouterr()
    assert message in re.sub(r"[\s│]+", " ", captured.out + captured.err)
    assert files() == before
    return code


def test_an_unreadable_file_is_named_and_debug_shows_the_traceback(tmp_path, monkeypatch, capsys):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder.path / "config.json"))

    monkeypatch.setattr(RunFolder, "read_config", refuse)
    assert command("--resume", "--out", tmp_path) == 1
    assert capsys.readouterr().err == f"train.py: error: {tmp_path}/config.json: Permission denied\n"
    assert command("--resume", "--out", tmp_path, "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("platforms", "error", "message"),
    [
        ("cuda", AssertionError(), "JAX_PLATFORMS=cuda: no GPU found; pip install -e"),
        (
            "cuda,cpu",
            RuntimeError("no driver\nmore"),
            "JAX_PLATFORMS=cuda,cpu: no GPU found (no driver)",
        ),
        ("cudda", RuntimeError("it is not known"), "JAX_PLATFORMS=cudda"),
    ],
)
def test_a_missing_device_is_reported(platforms, error, message, tmp_path, monkeypatch, capsys):
    def fail():
        raise error

    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setattr(jax, "devices", fail)
    assert command("--out", tmp_path / "run") == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_tilde_in_a_flag_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "datasets").mkdir()
    flags, config, folder = train.read(["--out=~/runs/x", "--data-dir=~/datasets"])
    assert flags.out == folder.path == tmp_path / "runs" / "x"
    assert config.data_dir == str(tmp_path / "datasets") == str(data_folder("~/datasets"))
    assert train.read(["--out=~nobody-of-that-name/x"])[2].path == Path("~nobody-of-that-name/x")


def test_new_runs_are_numbered_although_other_folders_are_there(tmp_path):
    for name in ("²-x", "٣-x", "007-x", "a-b", "-"):
        (tmp_path / name).mkdir()
    assert new_run_path("task", tmp_path) == tmp_path / "008-task"


TREE = {"kernel": jnp.eye(2), "bias": jnp.ones(2)}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: layca_optax.layca(-1.0), ValueError, "finite and not negative"),
        (lambda: layca_optax.layca(rotate="neurons"), ValueError, "did you mean 'neuron'"),
        (lambda: layca_optax.describe(TREE, rotate="layers"), ValueError, "did you mean 'layer'"),
        (
            lambda: layca_optax.alpha_multipliers(1.5, 3),
            ValueError,
            "alpha must be between -1 and 1, not 1.5",
        ),
        (lambda: layca_optax.alpha_multipliers(0.5, 0), ValueError, "num_layers must be at least 1, not 0"),
        (
            lambda: layca_optax.sgd_amom(0.1, momentum=1.0),
            ValueError,
            "momentum must be at least 0 and below 1",
        ),
        (lambda: layca_optax.layer_rotation(TREE, {"kernel": jnp.eye(2)}), ValueError, "bias"),
        (
            lambda: layca_optax.layer_depths(lambda params, x: x, TREE, jnp.ones(2)),
            ValueError,
            "'kernel'",
        ),
        (
            lambda: layca_optax.skip_nonfinite(layca_optax.layca()).update(
                TREE, layca_optax.skip_nonfinite(layca_optax.layca()).init(TREE)
            ),
            ValueError,
            r"update\(updates, state, params\)",
        ),
        (
            lambda: optax.chain(optax.scale_by_adam(), layca_optax.layca({"kernal": 0.1})).init(TREE),
            ValueError,
            "'kernal'.*'kernel'",
        ),
        (lambda: load("cifar11"), DataError, "Did you mean cifar10"),
        (
            lambda: augment(None, np.zeros((1, 4, 4, 1), np.uint8), flip=False, max_shift=4),
            ValueError,
            "max_shift must be between 0 and 3, not 4",
        ),
    ],
)
def test_bad_arguments_raise_errors_that_name_them(call, error, message):
    with pytest.raises(error, match=message):
        call()
