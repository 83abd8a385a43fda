"""Tests what is special with a GPU: the precision, the warning if it is idle, which job uses it."""

import os
import re
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_runs import Quick

import train
import training.step
from experiments import work
from models import pure
from models.mlp import MLP
from training import parallel
from training.config import Flags
from training.parallel import all_devices, matmul_precision, place, visible_gpus, warn_of_idle_gpu
from training.run import Interruption
from training.step import loss_and_metrics
from training.tasks import TASKS


@pytest.fixture
def gpu(monkeypatch):
    """Imitates a machine with two GPUs that jax uses."""
    jax.devices()  # jax itself looks for the same files when it starts
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(parallel.glob, "glob", lambda pattern: ["/dev/nvidia0", "/dev/nvidia1"])


def lowered():
    model = pure(MLP)
    params, state = jax.eval_shape(model.init, jax.random.key(0))
    images = jax.ShapeDtypeStruct((8, 28, 28, 1), jnp.float32)
    labels = jax.ShapeDtypeStruct((8,), jnp.int32)
    step = jax.grad(lambda *arguments: loss_and_metrics(model, *arguments, train=True)[0])
    text = jax.jit(step).trace(params, state, images, labels).lower(lowering_platforms=("cuda",)).as_text()
    return set(re.findall(r"precision = \[(\w+), (\w+)\]", text))


def test_products_are_tf32_on_accelerators_forward_and_backward(gpu):
    assert matmul_precision() == "tensorfloat32"
    assert lowered() == {("HIGH", "HIGH")}


def test_the_setting_of_jax_takes_precedence(gpu):
    with jax.default_matmul_precision("highest"):
        assert matmul_precision() == "highest"
        assert lowered() == {("HIGHEST", "HIGHEST")}


@pytest.mark.slow
def test_a_run_with_the_loop_and_the_precision_of_a_gpu_trains(gpu):
    config = Flags(epochs=1, batch_size=512).resolved()
    training.step._compile_program.cache_clear()
    try:
        (_, record), *_ = train.fit(config, TASKS[config.task].load(seed=0))
    finally:
        training.step._compile_program.cache_clear()
    assert record["matmul_precision"] == "tensorfloat32"
    assert np.isfinite(record["train_loss"])


@pytest.mark.slow
def test_a_run_on_placed_data_is_the_same():
    config = Flags(epochs=1, batch_size=512, validation=True).resolved()
    data = TASKS[config.task].load(seed=0)
    ((_, first),) = train.fit(config, data)
    first = {**first, "seconds": 0}
    ((_, second),) = train.fit(config, place(data, train.all_devices(), config.seed))
    assert {**second, "seconds": 0} == first


def test_devices_are_described():
    assert all_devices().describe() == f"{jax.device_count()} x cpu"
    assert train.all_devices().describe() == "cpu"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, ["0", "1"]), ("", []), ("-1", []), ("3, 5", ["3", "5"]), ("MIG-a", ["MIG-a"])],
)
def test_cuda_visible_devices_selects_the_gpus(value, expected, gpu, monkeypatch):
    if value is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert visible_gpus() == expected


def test_an_idle_gpu_is_reported(gpu, monkeypatch, capsys):
    warn_of_idle_gpu()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    warn_of_idle_gpu()
    assert "an NVIDIA GPU, but jax trains on the processor" in (said := capsys.readouterr().err)
    assert 'pip install -e ".[cuda]"' in said
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    warn_of_idle_gpu()
    assert capsys.readouterr().err == ""
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    warn_of_idle_gpu()
    assert capsys.readouterr().err == ""


def test_local_jobs_take_turns_on_the_gpus(gpu, monkeypatch):
    assert [gpu for _, gpu in parallel.shares(3)] == ["0", "1", "0"]
    seen = {}
    monkeypatch.setattr(work, "prepare_device", lambda: None)
    monkeypatch.setattr(work, "line", lambda run, data_dir: seen.update(os.environ))
    # submitit hides all of them.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    work.Job(Quick("works", 0, ""), None, (), "1")()
    assert seen["CUDA_VISIBLE_DEVICES"] == "1"


def test_without_a_gpu_jobs_get_none(monkeypatch):
    monkeypatch.setattr(parallel.glob, "glob", lambda pattern: [])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [gpu for _, gpu in parallel.shares(2)] == [None, None]


def test_a_signal_handler_of_another_library_stays():
    def theirs(number, frame):
        pass

    before = signal.signal(signal.SIGTERM, theirs)
    try:
        with Interruption() as interruption:
            assert signal.getsignal(signal.SIGTERM) is theirs
            assert signal.getsignal(signal.SIGINT) == interruption._note
        assert signal.getsignal(signal.SIGTERM) is theirs
    finally:
        signal.signal(signal.SIGTERM, before)
