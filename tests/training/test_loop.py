"""Tests the training loop: loop and scan, held-out images, evaluation, early stopping, defaults."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import train
import training.step
from models import pure
from models.mlp import MLP
from training.config import Flags
from training.run_folder import final_accuracy
from training.step import in_order, loss_and_metrics, over_batches, shuffled
from training.tasks import TASKS, StopRule, stop_reason


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_the_loop_on_cpus_and_the_scan_elsewhere_compute_the_same(backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    step = lambda carry, rows, data: carry * 2 + data[rows].sum()
    data = jnp.arange(6.0)
    batches = jnp.array([[0, 1], [4, 5], [2, 3]])
    epoch = over_batches(step)
    assert float(epoch(jnp.array(1.0), batches, data)) == ((1 * 2 + 1) * 2 + 9) * 2 + 5
    assert float(epoch(jnp.array(0.0), batches[:1], data)) == 1


def test_shuffled_rows_are_distinct_and_the_incomplete_batch_is_dropped():
    batches = np.asarray(shuffled(jax.random.key(0), 11, 4))
    assert batches.shape == (2, 4)
    assert len(set(batches.ravel())) == 8
    assert set(batches.ravel()) <= set(range(11))
    np.testing.assert_array_equal(in_order(5, 2), [[0, 1], [2, 3], [4, -1]])


def test_evaluation_in_batches_counts_every_image_once(monkeypatch):
    monkeypatch.setattr(training.step, "EVALUATION_BATCH", 1500)
    training.step._compile_program.cache_clear()
    config = Flags(epochs=1).resolved()
    data = TASKS[config.task].load(seed=0)
    devices = train.all_devices()
    program = train.compile_program(config, devices)
    state = program.init(np.uint32(0), config.hparams())
    part = devices.put_rows(data.test_images), devices.put_rows(data.test_labels)
    metrics = program.evaluate(state, part, len(data.test_labels), data.scale)
    model = pure(TASKS[config.task].build)
    images = (data.test_images.astype(np.float32) - data.scale.mean) / data.scale.std
    logits, _ = model.apply(state.params, state.model_state, images, train=False)
    logits = np.asarray(logits, np.float64)
    assert int(metrics.images) == 3976
    # Rounding may decide the class of two images.
    assert abs(int(metrics.correct) - np.sum(logits.argmax(-1) == data.test_labels)) <= 2
    log_sums = np.log(np.sum(np.exp(logits), -1))
    losses = log_sums - logits[np.arange(3976), data.test_labels]
    assert float(metrics.loss) == pytest.approx(losses.sum(), rel=1e-4)
    training.step._compile_program.cache_clear()


def test_rows_that_pad_a_batch_do_not_count():
    model = pure(partial(MLP, width=4, depth=1))
    params, model_state = model.init(jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (3, 28, 28, 1))
    metrics = partial(loss_and_metrics, model, params, model_state, train=False)
    loss, (whole, _) = metrics(images[:2], jnp.array([1, 2]))
    filled_loss, (filled, _) = metrics(images, jnp.array([1, 2, -1]))
    np.testing.assert_allclose(whole, filled, rtol=1e-6)
    assert float(loss) == pytest.approx(float(filled_loss))


def test_the_accuracy_on_held_out_images_is_recorded():
    config = Flags(epochs=2, batch_size=512, validation=True).resolved()
    records = [record for _, record in train.fit(config, TASKS[config.task].load(seed=0))]
    assert all(0 <= record["validation_accuracy"] <= 1 for record in records)
    # 103 images are held out of 1,024.
    assert records[0]["validation_accuracy"] * 103 == pytest.approx(
        round(records[0]["validation_accuracy"] * 103), abs=1e-3
    )


def record(loss, accuracy=1.0, **more):
    return {"train_loss": loss, "train_accuracy": accuracy, "test_accuracy": 0.5, **more}


def test_the_final_accuracy_is_that_of_the_best_epoch_on_held_out_images():
    assert final_accuracy([]) is None
    assert final_accuracy([record(1.0), record(1.0, test_accuracy=0.7)]) == 0.7
    looked = [
        record(1.0, test_accuracy=0.6, validation_accuracy=0.9),
        record(1.0, test_accuracy=None, validation_accuracy=None),
        record(1.0, test_accuracy=0.8, validation_accuracy=0.7),
    ]
    assert final_accuracy(looked) == 0.6


RULE = StopRule(stuck_accuracy=0.2, stuck_after=2, loss=1e-3)


@pytest.mark.parametrize(
    ("rule", "records", "reason"),
    [
        (RULE, [], None),
        (RULE, [record(1.0, 0.1), record(0.9, 0.1)], None),
        (RULE, [record(1.0, 0.1), record(0.9, 0.1), record(0.8, 0.2)], "training accuracy is at most 0.2"),
        (RULE, [record(1.0, 0.1), record(0.9, 0.1), record(0.8, 0.21)], None),
        (RULE, [record(1e-3)], "the training loss is at most 0.001"),
        (RULE, [record(2.0)] + [record(1.0)] * 3, None),
        (RULE, [record(1.0)] * 4, "has not changed for 3 epochs"),
        (RULE, [record(1.0), record(None), record(None)], None),
        (None, [record(None)] * 3, "was not finite for 3 epochs"),
        (None, [record(1.0, 0.1)] * 9, None),
    ],
)
def test_the_rules_for_stopping_early(rule, records, reason):
    found = stop_reason(rule, records)
    assert found is None if reason is None else reason in found


def test_a_run_stops_early(monkeypatch):
    rule = StopRule(stuck_accuracy=1.0, stuck_after=2, loss=0.0)
    task = TASKS["mnist5k-mlp"]._replace(stop=rule, evaluate_every=100)
    monkeypatch.setattr(train, "TASKS", {"mnist5k-mlp": task})
    config = Flags(epochs=6, batch_size=512).resolved()
    records = [record for _, record in train.fit(config, task.load(seed=0))]
    assert [record["epoch"] for record in records] == [1, 2, 3]
    assert records[1]["test_accuracy"] is None
    assert records[2]["test_accuracy"] is not None
    assert [*train.fit(config, task.load(seed=0), history=records)] == []


def test_defaults_follow_the_task_and_the_optimizer():
    """Checks settings of the paper that depend on Layca."""
    alone = Flags(task="c10-cnn2", optimizer="adam", layca=False).resolved()
    assert (alone.learning_rate, alone.weight_decay, alone.epochs) == (3e-4, 5e-4, 250)
    with_layca = Flags(task="c10-cnn2", optimizer="adam").resolved()
    assert (with_layca.learning_rate, with_layca.weight_decay) == (3**-5, 0.0)
    assert Flags(task="c10-cnn2", weight_decay=0.1).resolved().weight_decay == 0.1
    assert Flags(task="tiny-cnn").resolved().validation
    assert TASKS["tiny-cnn"].num_training_images(True) == 90_000
    assert TASKS["c10-cnn2"].schedule_with(True, 250) == ((100, 170, 220), 0.2)
    assert TASKS["c10-cnn2"].schedule_with(False, 250) == (tuple(range(25, 250, 25)), 0.5)
