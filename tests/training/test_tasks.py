"""Trains the networks of the paper at full size on few images, read from files of the original formats."""

import original_files
import pytest

import train
import training.config
import training.step
from training.config import Flags
from training.tasks import TASKS

COUNTS = {"train": (10, 8, 14), "test": (1, 2, 1)}


def write(name, folder):
    match name:
        case "tiny-cnn":
            original_files.write_tiny_imagenet(folder / "tiny-imagenet-200")
            return "tiny_imagenet"
        case "c100-resnet":
            original_files.write_cifar(folder / "cifar-100-binary.tar.gz", "cifar100")
            return "cifar100"
        case "fashion-vgg" | "fashion-resnet":
            original_files.write_idx(folder)
            return "fashion_mnist"
        case _:
            original_files.write_cifar(folder / "cifar-10-python.tar.gz", "cifar10")
            return "cifar10"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["c10-cnn1", "c100-resnet", "tiny-cnn", "c10-cnn2", "fashion-vgg", "fashion-resnet"]
)
def test_twenty_steps(name, tmp_path, monkeypatch):
    monkeypatch.setattr(original_files, "COUNTS", COUNTS)
    original_files.shrink(monkeypatch, write(name, tmp_path))
    task = TASKS[name]._replace(train_size=sum(COUNTS["train"]), validation=False)
    for module in (train, training.config, training.step):
        monkeypatch.setattr(module, "TASKS", {**TASKS, name: task})
    config = Flags(task=name, batch_size=16, epochs=10, data_dir=str(tmp_path)).resolved()
    data = task.load(seed=0, data_dir=config.data_dir)
    assert data.train_images.shape[1:] == task.input_shape
    history = [(state, record) for state, record in train.fit(config, data)]
    losses = [record["train_loss"] for _, record in history]
    assert int(history[-1][0].step) == 20
    assert min(losses[-3:]) < 0.7 * losses[0]
    assert all(0 < distance < 1 for distance in history[-1][1]["rotation"].values())
