import jax
import pytest

# Before anything starts jax's backend: the tests of sharding and pmap need several devices. All others
# run on the first of them.
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield
