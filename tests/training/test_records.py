"""Tests that errors in config.json and metrics.jsonl are reported with file, line and field."""

import json
import re
from contextlib import suppress

import pytest
from command import command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import train
from data.writing import FileError
from training.config import Flags, UsageError
from training.run_folder import RunFolder

ABSENT = object()
VALUES = [ABSENT, None, "4", 4, 4.5, True, [4], {"a": "b"}]
CONFIG = {
    "task": "mnist5k-mlp",
    "optimizer": "sgd",
    "layca": True,
    "learning_rate": 0.1,
    "alpha": 0.0,
    "weight_decay": 0.0,
    "batch_size": 128,
    "epochs": 60,
    "seed": 0,
    "validation": False,
    "data_dir": None,
    "schedule_epochs": 30,
    "data": {
        "name": "CIFAR-10",
        "format": "JPEG",
        "jpeg_quality": 75,
        "train_images": 50_000,
        "test_images": 10_000,
        "sha256": "0" * 64,
    },
}
RECORD = {
    "epoch": 1,
    "train_loss": 0.5,
    "train_accuracy": 0.5,
    "test_accuracy": None,
    "seconds": 1.5,
    "rotation": {"layers/0/kernel": 0.1},
    "skipped": {"layers/0/kernel": 2},
    "validation_accuracy": 0.5,
    "device": "cpu",
}
NUMBER, MAYBE = (4, 4.5), (4, 4.5, None)
# The values of `VALUES` that each field may have.
GOOD_CONFIG = {
    **dict.fromkeys(("task", "optimizer"), ("4",)),
    **dict.fromkeys(("layca", "validation"), (True,)),
    **dict.fromkeys(("learning_rate", "alpha", "weight_decay"), NUMBER),
    **dict.fromkeys(("batch_size", "epochs", "seed"), (4,)),
    "data_dir": ("4", None),
    "schedule_epochs": (4, None, ABSENT),
    "data": (None, ABSENT),
    **dict.fromkeys(("data.name", "data.format", "data.sha256"), ("4",)),
    **dict.fromkeys(("data.train_images", "data.test_images"), (4,)),
    "data.jpeg_quality": (4, None),
    "colour": (ABSENT,),
}
GOOD_RECORD = {
    "epoch": (4,),
    **dict.fromkeys(("train_loss", "train_accuracy", "test_accuracy"), MAYBE),
    "validation_accuracy": (*MAYBE, ABSENT),
    "seconds": NUMBER,
    "rotation": (),
    "rotation.layers/0/kernel": MAYBE,
    "skipped": (),
    "skipped.layers/0/kernel": (4, ABSENT),
}


def rows(good):
    """Yields every field with every value that it may not have; 4 and 4.0 are different values."""
    same = lambda a, b: type(a) is type(b) and a == b
    for field, allowed in good.items():
        for value in VALUES:
            if not any(same(value, one) for one in allowed):
                yield pytest.param(field, value, id=f"{field}={'absent' if value is ABSENT else value}")


def changed(record, field, value):
    name, _, rest = field.partition(".")
    if rest:
        return {**record, name: changed(record[name], rest, value)}
    kept = {key: found for key, found in record.items() if key != name}
    return kept if value is ABSENT else {**kept, name: value}


def names(field):
    """Returns how a message names a field; it names the dictionary, not its layers."""
    return re.escape(field.partition(".")[0] if "layers" in field else field.rpartition(".")[2])


@pytest.mark.parametrize(("field", "value"), [*rows(GOOD_CONFIG)])
def test_a_configuration_with_a_bad_field_is_not_resumed(field, value, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(before := json.dumps(changed(CONFIG, field, value)))
    message = rf"config\.json is not the configuration of a run: .*`.*{names(field)}`"
    with pytest.raises(UsageError, match=message):
        RunFolder(tmp_path).refuse_unless_free(Flags().resolved(), resume=True, overwrite=False)
    assert path.read_text() == before


@pytest.mark.parametrize(("field", "value"), [*rows(GOOD_RECORD)])
def test_a_record_with_a_bad_field_is_named(field, value, tmp_path):
    if field.startswith("rotation.") and value is ABSENT:
        message = "its rotation has other layers than line 1"
    else:
        message = rf"`{names(field)}(\[\.\.\.\])?`"
    path = tmp_path / "metrics.jsonl"
    lines = [RECORD, changed({**RECORD, "epoch": 2}, field, value)]
    path.write_text(before := "".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(FileError, match=rf"metrics\.jsonl is damaged: line 2 is no record: .*{message}"):
        RunFolder(tmp_path).keep_metrics(1)
    assert path.read_text() == before


def test_good_values_are_read(tmp_path):
    for field, allowed in GOOD_CONFIG.items():
        for value in allowed:
            (tmp_path / "config.json").write_text(json.dumps(changed(CONFIG, field, value)))
            assert RunFolder(tmp_path).read_config() is not None
    for field, allowed in GOOD_RECORD.items():
        for value in allowed:
            line = changed(RECORD, field, value)
            (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
            assert RunFolder(tmp_path).read_metrics() == [line]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*CONFIG, *RECORD]), inner),
    max_leaves=20,
)
SLOWLY = settings(
    max_examples=700,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl"])
@SLOWLY
@given(found=JSON, line=st.binary(max_size=20), cut=st.integers(0, 300), data=st.data())
def test_no_file_of_a_run_shows_a_traceback(name, found, line, cut, data, tmp_path, monkeypatch):
    """Writes any JSON, any bytes, and records that are cut or contain other bytes."""
    monkeypatch.setattr(train, "run", lambda *arguments, **flags: 0.5)
    good = json.dumps(CONFIG if name == "config.json" else RECORD).encode() + b"\n"
    other = data.draw(
        st.sampled_from([json.dumps(found).encode(), good[:cut], good[:cut] + line + good[cut:]])
    )
    (tmp_path / "config.json").write_bytes(json.dumps(CONFIG).encode())
    (tmp_path / "metrics.jsonl").write_bytes(b"")
    (tmp_path / name).write_bytes(other + b"\n" + line)
    before = files(tmp_path)
    assert train.main(["--resume", "--out", str(tmp_path)]) in (0, 1, 2)
    with suppress(FileError):
        RunFolder(tmp_path).read_metrics()
    assert files(tmp_path) == before


WORDS = (
    st.text(max_size=8)
    | st.integers().map(str)
    | st.floats().map(str)
    | st.sampled_from(["sgd", "[", "~", "."])
)
FLAGS = [f"--{name.replace('_', '-')}" for name in vars(Flags()) if name != "distributed"] + [
    "--no-layca",
    "",
]


@pytest.mark.slow
@SLOWLY
@given(words=st.lists(st.one_of(st.sampled_from(FLAGS), WORDS), max_size=6))
def test_no_command_line_shows_a_traceback(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "run", lambda *arguments, **flags: 0.5)
    assert command(*words) in (0, 1, 2)
    assert files(tmp_path) == {}
