"""Places arrays and data on devices, of one process or several."""

import glob
import os
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from data import Dataset, Scale, Source, hold_out
from data.writing import first_line
from training.config import UsageError

_AXIS = "devices"


class Devices(NamedTuple):
    """Holds all devices of all processes, as a mesh of one axis.

    With `shard_params`, every device keeps only its part of parameters and optimizer state.
    """

    mesh: Mesh
    shard_params: bool = False

    def describe(self) -> str:
        """Returns the name of the devices in logs: `NVIDIA H100 80GB HBM3`, or `8 x cpu`."""
        kind = self.mesh.devices.flat[0].device_kind
        return kind if self.mesh.size == 1 else f"{self.mesh.size} x {kind}"

    @property
    def replicated(self) -> NamedSharding:
        """Returns the sharding of an array that every device holds whole."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def rows(self) -> NamedSharding:
        """Returns the sharding that spreads the first axis."""
        return NamedSharding(self.mesh, PartitionSpec(_AXIS))

    def check_batch_size(self, size: int, largest: int) -> None:
        """Raises `UsageError` if the devices would not have equal parts of a batch."""
        if size % self.mesh.size:
            below = size - size % self.mesh.size
            near = [str(near) for near in (below, below + self.mesh.size) if 0 < near <= largest]
            raise UsageError(
                f"--batch-size {size} cannot be divided among {self.mesh.size} devices;"
                f" {' and '.join(near) or 'nothing near'} can"
            )

    def of_state(self, state: Any) -> Any:
        """Returns one sharding per leaf of a training state."""
        return jax.tree.map(self._of_leaf, state)

    def abstract(self, shapes: Any) -> Any:
        """Returns shapes, dtypes and shardings of a training state whose shapes are known."""
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            shapes,
            self.of_state(shapes),
        )

    def _of_leaf(self, leaf: Any) -> NamedSharding:
        if self.shard_params:
            for axis in reversed(range(leaf.ndim)):
                if leaf.shape[axis] % self.mesh.size == 0:
                    return NamedSharding(self.mesh, PartitionSpec(*[None] * axis, _AXIS))
        return self.replicated

    def put_rows(self, array: np.ndarray) -> jax.Array:
        """Places an array of rows on the devices, filled up with zero rows to a multiple of their number.

        Each process gives its own devices their rows and no others.
        """
        missing = -len(array) % self.mesh.size
        if missing:
            array = np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))
        return jax.make_array_from_callback(array.shape, self.rows, lambda index: array[index])


def all_devices(shard_params: bool = False) -> Devices:
    """Returns all devices that jax sees, of this process and all others."""
    mesh = jax.make_mesh((jax.device_count(),), (_AXIS,), axis_types=(jax.sharding.AxisType.Auto,))
    return Devices(mesh, shard_params)


class DeviceError(Exception):
    """Is raised where jax has no device to compute on; the message says what helps."""


def check_devices() -> None:
    """Raises `DeviceError` if jax cannot start. Processes must be connected before."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter where a plugin is missing
        platforms = os.environ.get("JAX_PLATFORMS", "")
        if {"cuda", "gpu", "rocm"} & set(platforms.split(",")):
            reason = f" ({first_line(error)})" if str(error) else ""
            raise DeviceError(
                f"JAX_PLATFORMS={platforms}: no GPU found{reason}; "
                'pip install -e ".[cuda]" installs jax for NVIDIA GPUs, '
                "JAX_PLATFORMS=cpu trains on the processor"
            ) from error
        asked_for = [f" {name}={value}" for name, value in os.environ.items() if name.startswith("JAX_")]
        raise DeviceError(f"jax cannot start,{''.join(asked_for)}: {first_line(error)}") from error


def matmul_precision() -> str:
    """Returns the precision of float32 products, one of the values of `jax_default_matmul_precision`.

    On accelerators it is `tensorfloat32` unless jax's configuration says something else: factors have a
    mantissa of 10 bits or more, and sums are float32. On processors it is always `float32`.
    """
    if jax.default_backend() == "cpu":
        return "float32"
    asked_for = jax.config.jax_default_matmul_precision  # pyrefly: ignore[missing-attribute]
    return asked_for or "tensorfloat32"


def visible_gpus() -> list[str]:
    """Lists the NVIDIA GPUs of this machine as `CUDA_VISIBLE_DEVICES` names them, usable by jax or not."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    return [str(number) for number, _ in enumerate(glob.glob("/dev/nvidia[0-9]*"))]


def shares(count: int) -> list[tuple[tuple[int, ...], str | None]]:
    """Returns cores and a GPU, if there is any, for each of `count` processes that share this machine."""
    gpus = visible_gpus() or [None]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []  # Linux alone has it
    mine = lambda i: tuple(cores[i % len(cores) :: count]) if cores else ()
    return [(mine(i), gpus[i % len(gpus)]) for i in range(count)]


def warn_of_idle_gpu() -> None:
    """Warns on standard error if training runs on the processor of a machine that has an NVIDIA GPU."""
    asked_for = os.environ.get("JAX_PLATFORMS", "")
    if visible_gpus() and jax.default_backend() == "cpu" and not asked_for and jax.process_index() == 0:
        print(
            "warning: this machine has an NVIDIA GPU, but jax trains on the processor, many times slower."
            ' Install jax for CUDA, pip install -e ".[cuda]"; JAX_PLATFORMS=cpu silences this',
            file=sys.stderr,
        )


# Images and their labels.
Rows = tuple[jax.Array, jax.Array]


class Placed(NamedTuple):
    """Holds the data of a run on the devices.

    Attributes:
      train: the images that are trained on.
      splits: by the name of their metric, the other images and their number without filled up rows.
      scale: of the images that are trained on.
      source: what the dataset was read from.
    """

    train: Rows
    splits: Mapping[str, tuple[Rows, int]]
    scale: Scale
    source: Source | None


def place(data: Dataset, devices: Devices, held_out_by: int | None) -> Placed:
    """Puts a dataset on the devices.

    `held_out_by` is the seed that chooses a tenth of the training images to hold out; `None` holds out none.
    """

    def put(images: np.ndarray, labels: np.ndarray) -> Rows:
        return devices.put_rows(images), devices.put_rows(labels)

    splits = {"test_accuracy": (put(data.test_images, data.test_labels), len(data.test_labels))}
    if held_out_by is not None:
        data = hold_out(data, held_out_by)
        splits["validation_accuracy"] = put(data.test_images, data.test_labels), len(data.test_labels)
    return Placed(put(data.train_images, data.train_labels), splits, data.scale, data.source)
