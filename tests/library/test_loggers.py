"""Scalars of layer rotation in a logger: TensorBoard reads what `rotation_scalars` returned."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tensorboardX import SummaryWriter

from layca_optax import rotation_scalars, track_rotation


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of TensorBoard's own imports
def test_tensorboard_reads_what_was_written(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    params = {"stack": jax.random.normal(jax.random.key(0), (2, 3, 4)), "bias": jnp.ones(4)}
    optimizer = optax.chain(optax.adam(0.1), track_rotation(rotate="stacked_layer"))
    state, written = optimizer.init(params), []
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(3):
            updates, state = optimizer.update(jax.tree.map(jnp.cos, params), state, params)
            params = optax.apply_updates(params, updates)
            written.append(rotation_scalars(state))
            for name, value in written[-1].items():
                writer.add_scalar(name, value, step)
    events = reader.EventAccumulator(str(tmp_path)).Reload()
    assert set(events.Tags()["scalars"]) == set(written[0])
    for name in written[0]:
        assert [event.step for event in events.Scalars(name)] == [0, 1, 2]
        values = [event.value for event in events.Scalars(name)]
        np.testing.assert_array_equal(np.float32(values), np.float32([scalars[name] for scalars in written]))
