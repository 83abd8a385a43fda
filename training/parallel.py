"""Where arrays live, and how processes train together: devices, data on them, who writes and prints."""

import glob
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from data import Dataset, Scale, Source, hold_out
from data.writing import first_line
from training.config import UsageError

_AXIS = "devices"


class Devices(NamedTuple):
    """All devices of all processes, in one line.

    Attributes:
      mesh: the line of devices.
      shard_params: whether every device keeps only its part of parameters and optimizer state.
    """

    mesh: Mesh
    shard_params: bool = False

    def describe(self) -> str:
        """What they are, as the logs have it: `NVIDIA H100 80GB HBM3`, or `8 x cpu`."""
        kind = self.mesh.devices.flat[0].device_kind
        return kind if self.mesh.size == 1 else f"{self.mesh.size} x {kind}"

    @property
    def replicated(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def rows(self) -> NamedSharding:
        """The first axis is spread."""
        return NamedSharding(self.mesh, PartitionSpec(_AXIS))

    def check_batch_size(self, size: int, largest: int) -> None:
        """Raises `UsageError` if the devices' parts of a batch would not be of one size."""
        if size % self.mesh.size:
            below = size - size % self.mesh.size
            near = [str(near) for near in (below, below + self.mesh.size) if 0 < near <= largest]
            raise UsageError(
                f"--batch-size {size} cannot be divided among {self.mesh.size} devices;"
                f" {' and '.join(near) or 'nothing near'} can"
            )

    def of_state(self, state: Any) -> Any:
        """A sharding for every leaf of a training state."""
        return jax.tree.map(self._of_leaf, state)

    def abstract(self, shapes: Any) -> Any:
        """Shapes, dtypes and shardings of a training state whose shapes are known."""
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
        """An array of rows, filled up with zero rows to a multiple of the devices.

        Every process hands its own devices their rows and no others.
        """
        missing = -len(array) % self.mesh.size
        if missing:
            array = np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))
        return jax.make_array_from_callback(array.shape, self.rows, lambda index: array[index])


def all_devices(shard_params: bool = False) -> Devices:
    """Every device that JAX sees, in this process and all others."""
    mesh = jax.make_mesh((jax.device_count(),), (_AXIS,), axis_types=(jax.sharding.AxisType.Auto,))
    return Devices(mesh, shard_params)


class DeviceError(Exception):
    """JAX has no device to compute on; the message says what was asked for and what helps."""


def check_devices() -> None:
    """Raises `DeviceError` if jax cannot start; before that, processes must have found each other."""
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
    """The precision of a network's float32 products, one of `jax_default_matmul_precision`'s values.

    Unless jax's configuration says something else, that is `tensorfloat32`: products on accelerators have 10
    bits behind the point or more, and sums are float32. Processors compute in `float32` in any case.
    """
    if jax.default_backend() == "cpu":
        return "float32"
    asked_for = jax.config.jax_default_matmul_precision  # pyrefly: ignore[missing-attribute]
    return asked_for or "tensorfloat32"


def visible_gpus() -> list[str]:
    """NVIDIA's GPUs here, as `CUDA_VISIBLE_DEVICES` names them, whether jax can use them or not."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    return [str(number) for number, _ in enumerate(glob.glob("/dev/nvidia[0-9]*"))]


def shares(count: int) -> list[tuple[tuple[int, ...], str | None]]:
    """Returns cores and, if there is any, GPU for each of `count` processes that share this machine."""
    gpus = visible_gpus() or [None]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []  # Linux alone has it
    mine = lambda i: tuple(cores[i % len(cores) :: count]) if cores else ()
    return [(mine(i), gpus[i % len(gpus)]) for i in range(count)]


def warn_of_idle_gpu() -> None:
    """Says so on standard error if training runs on the processor and the machine has an NVIDIA GPU."""
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
    """What a run trains on and looks at.

    Attributes:
      train: the images that are trained on.
      splits: by the name of the metric, other images and how many they are without filled up rows.
      scale: of the images that are trained on.
      source: what the dataset was read from.
    """

    train: Rows
    splits: Mapping[str, tuple[Rows, int]]
    scale: Scale
    source: Source | None


def place(data: Dataset, devices: Devices, held_out_by: int | None) -> Placed:
    """Puts a dataset on the devices.

    Args:
      data: the dataset.
      devices: where to.
      held_out_by: the seed that chooses a tenth of the training images to hold out; `None` holds out none.
    """

    def put(images: np.ndarray, labels: np.ndarray) -> Rows:
        return devices.put_rows(images), devices.put_rows(labels)

    splits = {"test_accuracy": (put(data.test_images, data.test_labels), len(data.test_labels))}
    if held_out_by is not None:
        data = hold_out(data, held_out_by)
        held_out = put(data.test_images, data.test_labels), len(data.test_labels)
        splits["validation_accuracy"] = held_out
    return Placed(put(data.train_images, data.train_labels), splits, data.scale, data.source)


COORDINATOR = "JAX_COORDINATOR_ADDRESS"
_NUMBERS = ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


class OtherProcessError(Exception):
    """Another process ended the run."""


def start_distributed() -> None:
    """Connects this process with the others.

    JAX itself finds them under Slurm, Open MPI, Kubernetes and on TPUs, and reads the coordinator's address
    from the environment; elsewhere their number and this one's place are read there too.

    Raises:
      UsageError: the environment does not say who the others are.
    """
    given = {name: os.environ[name] for name in _NUMBERS if name in os.environ}
    if given and (len(given) < len(_NUMBERS) or COORDINATOR not in os.environ):
        missing = [name for name in (COORDINATOR, *_NUMBERS) if name not in os.environ]
        raise UsageError(f"--distributed: {' and '.join(given)} is set, {' and '.join(missing)} is not")
    for name, value in given.items():
        if not value.isdecimal():
            raise UsageError(f"--distributed: {name} must be a number, not {value!r}")
    count, number = (int(given[name]) if given else None for name in _NUMBERS)
    if count is not None and number is not None and number >= count:
        raise UsageError(f"--distributed: JAX_PROCESS_ID must be below the {count} processes, not {number}")
    try:
        jax.distributed.initialize(num_processes=count, process_id=number)
    except (ValueError, RuntimeError) as error:
        raise UsageError(
            f"--distributed: {error}. Without a cluster that JAX knows, set {COORDINATOR} (host:port of"
            f" process 0), {_NUMBERS[0]} and {_NUMBERS[1]} (0, 1, ...)"
        ) from error


def is_primary() -> bool:
    """Whether this is the process that writes and prints."""
    return jax.process_index() == 0


@contextmanager
def only_primary_prints() -> Iterator[None]:
    """On all others standard output goes nowhere."""
    if is_primary():
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield


def any_process(flag: bool) -> bool:
    """Whether the flag is set on one of the processes; all of them must ask."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def on_primary(action: Callable[[], object]) -> None:
    """Runs `action` on the first process while the others wait; what it raises ends them too.

    Raises:
      OtherProcessError: on the others, if `action` raised.
    """
    error = None
    if is_primary():
        try:
            action()
        except Exception as raised:
            error = raised
    failed = any_process(error is not None)
    if error is not None:
        raise error
    if failed:
        raise OtherProcessError("the first process ended the run; its message says why")
