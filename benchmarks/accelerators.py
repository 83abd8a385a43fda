"""Compiles optimizers' steps and the epoch of `train.py` for GPUs and TPUs that this machine lacks."""

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks import hlo
from layca_optax import layca, track_rotation

TRACKED = "layca, track_rotation"
OPTIMIZERS: Mapping[str, Callable[[], optax.GradientTransformation]] = {
    "sgd": lambda: optax.sgd(0.1),
    "adam": lambda: optax.adam(1e-3),
    "lamb": lambda: optax.lamb(1e-3),
    "layca": layca,
    TRACKED: lambda: optax.chain(layca(), track_rotation()),
}


class Target(NamedTuple):
    """Devices to compile for."""

    platform: str
    topology: str
    chips: int
    dtypes: Sequence[str] = ("float32",)


TARGETS = {
    "h100": Target("cuda", "h100", 1, ("float32", "bfloat16")),
    "v5e": Target("tpu", "v5e:1x1", 1),
    "v5e:2x2": Target("tpu", "v5e:2x2", 4),
    "v5e:16x16": Target("tpu", "v5e:16x16", 256),
}
# The description of a GPU that XLA needs.
H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_block_limit: 65536 registers_per_core_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
  l2_cache_size: 52428800 device_memory_size: 84978434048 memory_bandwidth: 3352320000000
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


class Step(NamedTuple):
    """The cost of an optimizer's compiled step.

    `bytes` and `carried` (the bytes passed to collectives) are multiples of the parameters' bytes.
    """

    kernels: int
    kernels_per_leaf: float  # per leaf that rotates
    bytes: float
    bytes_against_sgd: float
    collectives: Counter[str]
    all_reduces: int
    other_collectives: int
    carried: float
    carried_bytes: int
    temporary_bytes: int
    seconds: float
    seconds_against_adam: float


class Epoch(NamedTuple):
    """The cost of the compiled epoch of `train.py`; bytes are per device."""

    steps: int
    parameter_bytes: int  # of all devices
    kept_bytes: int  # state and images
    memory_bytes: int  # everything
    collectives: Counter[str]  # per step, and a few per epoch
    carried_bytes: int
    seconds: float


def transformer() -> dict[str, tuple[int, ...]]:
    """Returns the shapes of 12 blocks of width 768 and an embedding: 121 leaves, of which 73 rotate."""
    block: dict[str, tuple[int, ...]] = {"up": (768, 3072), "down": (3072, 768), "bias_up": (3072,)}
    block |= dict.fromkeys("qkvo", (768, 768))
    block |= dict.fromkeys(("bias_down", "norm_attention", "norm_mlp"), (768,))
    return {"embedding": (32768, 768)} | {f"{i}/{n}": shape for i in range(12) for n, shape in block.items()}


def described_devices(target: Target) -> list[Any]:
    """Describes the devices of a target, which need not exist."""
    kwargs: dict[str, Any] = {}
    if target.platform == "cuda":
        kwargs = {"target_config": H100, "topology": "1x1x1"}
    else:
        # libtpu looks for these on a TPU's host.
        os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
        os.environ.setdefault("TPU_ACCELERATOR_TYPE", f"v5litepod-{target.chips}")
        if target.chips == 1:
            kwargs["chips_per_host_bounds"] = [1, 1, 1]
    topology = topologies.get_topology_desc(target.topology, platform=target.platform, **kwargs)
    return list(topology.devices)


def compile_step(tx: optax.GradientTransformation, shapes: Mapping[str, Any], dtype: Any, mesh: Mesh) -> Any:
    """Compiles a step. Arrays are sharded along axis 0 if the number of devices divides its length."""

    def spread(leaf: Any) -> jax.ShapeDtypeStruct:
        spec = PartitionSpec("devices") if leaf.shape and leaf.shape[0] % mesh.size == 0 else PartitionSpec()
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    def step(params: Any, state: Any, gradients: Any) -> tuple[Any, Any]:
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    params = {name: spread(jax.ShapeDtypeStruct(shape, dtype)) for name, shape in shapes.items()}
    state = jax.tree.map(spread, jax.eval_shape(tx.init, params))
    return jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params).compile()


def steps(target: Target, dtype: str, names: Sequence[str], rounds: int) -> dict[str, Step]:
    """Compiles steps of `names`, which must include sgd and adam; ratios of times are medians over rounds."""
    jax.config.update("jax_num_cpu_devices", target.chips)  # so that `jax.device_count()` is right
    shapes, mesh = transformer(), Mesh(np.array(described_devices(target)), ("devices",))
    rotating = sum(len(shape) > 1 for shape in shapes.values())
    total = sum(np.prod(shape) for shape in shapes.values()) * jnp.dtype(dtype).itemsize
    programs: dict[str, Any] = {}
    seconds = {name: np.empty(rounds) for name in names}
    compile_step(optax.sgd(0.1), shapes, dtype, mesh)  # loads the compiler
    for i in range(rounds):
        for name in names:
            jax.clear_caches()
            started = time.perf_counter()
            programs[name] = compile_step(OPTIMIZERS[name](), shapes, dtype, mesh)
            seconds[name][i] = time.perf_counter() - started
    costs = {name: hlo.cost(p.as_text(), scalars=target.platform == "cuda") for name, p in programs.items()}
    moved = {name: cost.bytes for name, cost in costs.items()}
    if target.platform == "tpu":
        # The text does not show copies between a TPU's memories, so take XLA's own estimate.
        moved = {n: p.cost_analysis()["bytes accessed"] * target.chips for n, p in programs.items()}
    return {
        name: Step(
            kernels=cost.kernels,
            kernels_per_leaf=cost.kernels / rotating,
            bytes=moved[name] / total,
            bytes_against_sgd=moved[name] / moved["sgd"],
            collectives=cost.collectives,
            all_reduces=cost.collectives["all-reduce"],
            other_collectives=cost.collectives.total() - cost.collectives["all-reduce"],
            carried=cost.carried / total,
            carried_bytes=cost.carried,
            temporary_bytes=programs[name].memory_analysis().temp_size_in_bytes,
            seconds=float(np.median(seconds[name])),
            seconds_against_adam=float(np.median(seconds[name] / seconds["adam"])),
        )
        for name, cost in costs.items()
    }


def epoch(target: Target, shard_params: bool) -> Epoch:
    """Compiles the epoch of c10-cnn1 with Layca: all steps in one program."""
    import train
    from data import Scale
    from training.config import Flags
    from training.parallel import Devices

    jax.config.update("jax_num_cpu_devices", target.chips)
    # `train.py` asks for TF32, on TPUs three passes per product, which XLA compiles for much longer.
    jax.config.update("jax_default_matmul_precision", "bfloat16")
    mesh = Mesh(np.array(described_devices(target)), ("devices",))
    devices, config = Devices(mesh, shard_params), Flags(task="c10-cnn1").resolved()
    task, hparams = train.TASKS[config.task], config.hparams()
    rows = task.num_training_images(config.validation)
    images = jax.ShapeDtypeStruct((rows, *task.input_shape), jnp.uint8, sharding=devices.rows)
    labels = jax.ShapeDtypeStruct((rows,), jnp.int32, sharding=devices.rows)
    scale = Scale(np.float32(0), np.float32(1))
    # `train.py` chooses the form of the epoch and the precision of products by backend.
    with mock.patch("jax.default_backend", return_value=target.platform):
        program = train.compile_program(config, devices)
        state = devices.abstract(jax.eval_shape(program.init, np.uint32(0), hparams))
        started = time.perf_counter()
        whole = jax.jit(program.train_epoch, donate_argnums=0)
        lowered: Any = whole.lower(state, (images, labels), scale, np.uint32(0), hparams)
    compiled = lowered.compile()
    seconds = time.perf_counter() - started
    memory = compiled.memory_analysis()
    needed = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    cost = hlo.cost(compiled.as_text(), scalars=False)
    return Epoch(
        steps=rows // config.batch_size,
        parameter_bytes=sum(w.size * w.dtype.itemsize for w in jax.tree.leaves(state.params)),
        kept_bytes=memory.argument_size_in_bytes,
        memory_bytes=needed + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes,
        collectives=cost.collectives,
        carried_bytes=cost.carried,
        seconds=seconds,
    )


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function in a new process, because JAX cannot change its number of devices once it runs."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()
