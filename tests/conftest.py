import os
from tempfile import TemporaryDirectory

import jax
import numpy as np
import pytest
from command import SHORT, command
from jax.sharding import AxisType, Mesh

import train
from training.parallel import Devices, all_devices

# `--doctest-modules` would import it, and so run it, in every process.
collect_ignore = ["library/typed_script.py"]

# This must come before anything starts jax's backend. The tests of sharding and pmap need several devices;
# the others run on the first of them.
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config):
    """Lets all processes of a test run share compiled programs."""
    if hasattr(config, "workerinput"):
        return
    folder = TemporaryDirectory(prefix="compiled-")
    config.add_cleanup(folder.cleanup)
    cache = {"jax_compilation_cache_dir": folder.name, "jax_persistent_cache_min_compile_time_secs": 0.2}
    for name, value in cache.items():
        os.environ[name.upper()] = str(value)
        jax.config.update(name, value)


def first_device(shard_params: bool = False) -> Devices:
    mesh = Mesh(np.array(jax.devices()[:1]), ("devices",), axis_types=(AxisType.Auto,))
    return Devices(mesh, shard_params)


# As on a laptop. Tests of several devices use `eight_devices` or pass their own.
train.all_devices = first_device


@pytest.fixture
def eight_devices(monkeypatch):
    """Lets runs train on all devices, as they do outside the tests."""
    monkeypatch.setattr(train, "all_devices", all_devices)


@pytest.fixture
def one_device(monkeypatch):
    """Shows the code one device, and forgets what was traced for several."""
    jax.clear_caches()
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    yield
    jax.clear_caches()


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Returns the folder of a run of two epochs; tests that change it copy it."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert command(*SHORT, "--out", folder) == 0
    return folder
