"""Where arrays live: rows of data and batches spread over all devices, the state on each or spread too."""

import glob
import os
import sys
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

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
