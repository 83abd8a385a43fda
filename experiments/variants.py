"""Trains with Layca on any base and with any flags, on a task or on text, for `tangent` and `rates`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

import train
from data import text
from experiments.runs import Training, rounded, training
from layca_optax import alpha_learning_rates, layca, skip_nonfinite
from models import pure
from models.transformer import Transformer
from training.optimizer import DIRECTIONS

Retraction = Literal["projection", "geodesic"]

BATCH, CONTEXT, WIDTH, DEPTH, HEADS = 16, 32, 32, 2, 2
# The rate of leaves that do not rotate, and the factor to which all rates fall at the end of a run.
OTHERS, LAST = 1e-2, 0.1


def _kernels(params: Any) -> Any:
    """Tells Muon which axes of dense and convolutional kernels are inputs; the last one is outputs."""
    return jax.tree.map(lambda w: MuonDimensionNumbers(tuple(range(w.ndim - 1)), (w.ndim - 1,)), params)


def _stacks(params: Any) -> Any:
    """Tells Muon which axes of stacked kernels are inputs; attention's `out` has two."""

    def axes(keys: Any, leaf: Any) -> MuonDimensionNumbers:
        inputs = (1, 2) if _path(keys).endswith("/out/kernel") else (1,)
        return MuonDimensionNumbers(inputs, tuple(range(1 + len(inputs), leaf.ndim)))

    return jax.tree_util.tree_map_with_path(axes, params)


def _path(keys: Any) -> str:
    return jax.tree_util.keystr(keys, simple=True, separator="/")


BASES: Mapping[str, Callable[[], optax.GradientTransformation]] = {
    **DIRECTIONS,
    "muon": lambda: scale_by_muon(weight_dimension_numbers=_kernels),
}


@dataclass(frozen=True)
class Variant(Training):
    """A run on a task; the optimizer in its configuration is the base, or SGD if the base is Muon."""

    base: str
    tangent: bool = True
    retraction: Retraction = "projection"
    PROGRAM = "variant"

    def program(self) -> tuple[Any, ...]:
        return (*super().program(), self.config.batch_size, self.base, self.tangent, self.retraction)

    def steps(self) -> int:
        config = self.config
        images = train.TASKS[config.task].num_training_images(config.validation)
        return config.epochs * (images // config.batch_size)

    def optimizer(self) -> Any:
        return _make(self.base, self.tangent, self.retraction)

    def summary(self, records: list[dict[str, Any]], data_dir: str | None) -> dict[str, Any]:
        """Keeps only the last rotation, because hundreds of these runs take hundreds of epochs."""
        logged = super().summary(records, data_dir)
        rotation = logged["curves"]["rotation"]
        logged["curves"]["rotation"] = {layer: distances[-1:] for layer, distances in rotation.items()}
        return logged


def variant(task: str, base: str, power: int, seed: int, **flags: Any) -> Variant:
    """Returns a run at a rate of 3 to a power; `flags` are those of `Variant` and of `train.py`."""
    own = {name: flags.pop(name) for name in ("tangent", "retraction") if name in flags}
    optimizer = base if base in DIRECTIONS else "sgd"
    run = training(task=task, optimizer=optimizer, learning_rate=3.0**power, seed=seed, **flags)
    return Variant(run.config, base, **own)


@cache
def _make(base: str, tangent: bool, retraction: Retraction) -> Any:
    """Returns the optimizer of a variant; the same function for the same flags."""
    return with_rates(
        lambda name, rates, depths: skip_nonfinite(
            optax.chain(BASES[base](), layca(rates, tangent=tangent, retraction=retraction))
        )
    )


def with_rates(build: Callable[[str, Any, Any], optax.GradientTransformationExtraArgs]) -> Any:
    """Makes a replacement of `make_optimizer` from `build(optimizer, layer-wise rates, depths)`."""

    def make(
        name: str, with_layca: bool, hparams: Any, depths: Any, schedule: optax.Schedule
    ) -> optax.GradientTransformationExtraArgs:
        del with_layca
        rate = lambda count: hparams.learning_rate * schedule(count)
        return build(name, alpha_learning_rates(rate, hparams.alpha, depths), depths)

    return make


@dataclass(frozen=True)
class Language:
    """A run of a small transformer on bytes, at all these rates and with all these seeds at the same time.

    Each embedding rotates as one vector, and each block's kernel as one. Other leaves have Adam. Rates fall
    linearly.
    """

    base: str
    steps: int
    powers: Sequence[int]
    seeds: Sequence[int]
    tangent: bool = True
    retraction: Retraction = "projection"

    def fields(self) -> dict[str, Any]:
        return {"program": "language", **asdict(self)}

    def task(self) -> str:
        return "text"

    def estimate(self) -> float:
        return 15 + 0.003 * self.steps * len(self.powers) * len(self.seeds)

    def program(self) -> tuple[Any, ...]:
        return "language", self.base, self.steps, self.tangent, self.retraction

    def execute(self, data_dir: str | None) -> dict[str, Any]:
        """Returns the losses on both halves of the held-out text, nats per byte, `(powers, seeds)`."""
        del data_dir  # embedded
        both = jax.vmap(jax.vmap(self._train, (None, 0)), (0, None))
        losses = jax.jit(both)(3.0 ** jnp.array(self.powers, jnp.float32), jnp.array(self.seeds))
        halves = zip(("choice", "loss"), np.asarray(losses), strict=True)
        return {name: [[rounded(float(x)) for x in row] for row in half] for name, half in halves}

    def trace(self) -> None:
        jax.eval_shape(self._train, jnp.float32(0), jnp.int32(0))

    def _train(self, rate: jax.Array, seed: jax.Array) -> tuple[jax.Array, jax.Array]:
        model = pure(partial(Transformer, width=WIDTH, depth=DEPTH, heads=HEADS, context=CONTEXT))
        training, *held_out = map(jnp.asarray, _streams())
        stacked = scale_by_muon(weight_dimension_numbers=_stacks)
        base = stacked if self.base == "muon" else BASES[self.base]()
        first, second = jax.random.split(jax.random.key(seed))
        params, _ = model.init(first)
        falling = lambda count: 1 - (1 - LAST) * count / self.steps
        optimizer = optax.chain(
            optax.partition({"base": base, "adam": optax.scale_by_adam(b2=0.99)}, self._labels),
            layca(
                lambda count: rate * falling(count),
                rotate=rotate,
                others=optax.scale_by_learning_rate(lambda count: OTHERS * falling(count)),
                tangent=self.tangent,
                retraction=self.retraction,
            ),
        )

        def loss(params: Any, stream: jax.Array, starts: jax.Array) -> jax.Array:
            tokens = stream[starts[:, None] + jnp.arange(CONTEXT + 1)[None]].astype(jnp.int32)
            logits, _ = model.apply(params, {}, tokens[:, :-1], train=True)
            return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

        def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
            params, state = carry
            starts = jax.random.randint(key, (BATCH,), 0, len(training) - CONTEXT)
            updates, state = optimizer.update(jax.grad(loss)(params, training, starts), state, params)
            return (optax.apply_updates(params, updates), state), None

        keys = jax.random.split(second, self.steps)
        (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), keys)
        every = jnp.arange(0, len(held_out[0]) - CONTEXT, CONTEXT)
        choice, compared = (loss(params, stream, every) for stream in held_out)
        return choice, compared

    def _labels(self, params: Any) -> Any:
        """Gives Muon the kernels of blocks, and other bases the embeddings too; Adam has the rest."""

        def label(keys: Any, leaf: Any) -> str:
            kinds = [(0,)] if self.base == "muon" else [(0,), ()]
            return "base" if rotate(_path(keys), leaf) in kinds else "adam"

        return jax.tree_util.tree_map_with_path(label, params)


def rotate(path: str, leaf: Any) -> tuple[int, ...] | None:
    """Rotates the kernels of blocks, which are stacked along axis 0, and embeddings."""
    if path.startswith("blocks/") and path.endswith("/kernel"):
        return (0,)
    return () if path.endswith("/embedding") else None


@cache
def _streams() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns bytes to train on, to choose a rate by, and to compare by; the last two of one length."""
    training, held_out = text.load()
    middle = len(held_out) // 2
    return training, held_out[:middle], held_out[middle : 2 * middle]
