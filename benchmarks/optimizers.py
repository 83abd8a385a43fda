"""Measures the cost of an optimizer's step: Layca and its monitoring against optax's optimizers.

    python -m benchmarks.optimizers networks
    python -m benchmarks.optimizers sizes
    python -m benchmarks.optimizers leaves

`networks` needs 12 GiB. Put `GLIBC_TUNABLES=glibc.malloc.hugetlb=1` before the command: with 2 MB pages, the
times depend less on where the system puts the arrays.

A step is `optimizer.update` and `optax.apply_updates` in one jitted function that donates parameters and
state. The gradients change from step to step; a constant one would be parallel to the weights after 40 steps.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from benchmarks.timing import Times, interleaved, machine, ratio
from layca_optax import layca, track_rotation
from models import pure
from training.tasks import TASKS

FIGURE = Path(__file__).parent / "optimizers.png"
GRADIENTS = 3
PLACES = 5
Shapes = Sequence[tuple[int, ...]]


def naive_layca() -> optax.GradientTransformation:
    """Makes Algorithm 1 line by line, like a port of the authors' code."""

    def turned(w: jax.Array, g: jax.Array, n0: jax.Array) -> jax.Array:
        if w.ndim < 2:
            return -g / 27
        step = -g - jnp.sum(-g * w) / jnp.sum(w * w) * w
        new = w + step * jnp.linalg.norm(w) / jnp.linalg.norm(step) / 27
        return new / jnp.linalg.norm(new) * n0 - w

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return jax.tree.map(turned, params, updates, state), state

    return optax.GradientTransformation(lambda params: jax.tree.map(jnp.linalg.norm, params), update)


OPTIMIZERS: Mapping[str, Callable[[], optax.GradientTransformation]] = {
    "sgd": lambda: optax.sgd(0.1),
    "momentum": lambda: optax.sgd(0.1, momentum=0.9),
    "adam": lambda: optax.adam(1e-3),
    "lars": lambda: optax.lars(0.1),
    "lamb": lambda: optax.lamb(1e-3),
    "fromage": lambda: optax.fromage(0.1),
    "muon": lambda: optax.contrib.muon(1e-3),
    "naive port": naive_layca,
    "layca": layca,
    "layca, track_rotation": lambda: optax.chain(layca(), track_rotation()),
}


class Stepper:
    """Runs an optimizer on a tree of random numbers: each call is a step."""

    def __init__(self, make: Callable[[], Any], params: Any, gradients: Sequence[Any]) -> None:
        optimizer = make()

        def step(params: Any, state: Any, gradients: Any) -> tuple[Any, Any]:
            updates, state = optimizer.update(gradients, state, params)
            return optax.apply_updates(params, updates), state

        self.params = jax.tree.map(jnp.copy, params)  # they are donated
        self.state = jax.jit(optimizer.init)(self.params)
        started = time.perf_counter()
        self.step = jax.jit(step, donate_argnums=(0, 1))
        self.gradients = gradients
        self.calls = 0
        jax.block_until_ready(self())
        self.first_call = time.perf_counter() - started

    def move(self, gradients: Sequence[Any]) -> None:
        """Copies the arrays to new memory; `gradients` are copies already."""
        self.params, self.state = jax.tree.map(jnp.copy, (self.params, self.state))
        self.gradients = gradients

    def __call__(self) -> Any:
        self.calls += 1
        gradients = self.gradients[self.calls % len(self.gradients)]
        self.params, self.state = self.step(self.params, self.state, gradients)
        return self.params


def steppers(shapes: Shapes, dtype: Any, names: Sequence[str]) -> dict[str, Stepper]:
    """Makes a `Stepper` per optimizer, on leaves of these shapes."""
    draw = jax.jit(
        lambda key: [
            jax.random.normal(k, s, dtype)
            for k, s in zip(jax.random.split(key, len(shapes)), shapes, strict=True)
        ]
    )
    params, *gradients = [draw(jax.random.key(seed)) for seed in range(1 + GRADIENTS)]
    return {name: Stepper(OPTIMIZERS[name], params, gradients) for name in names}


def timed(made: Mapping[str, Stepper], rounds: int) -> Times:
    """Repeats `interleaved` `PLACES` times, each time with all arrays in new memory.

    Where the system puts the arrays changes the time of a step by up to half.
    """
    parts = []
    for _ in range(PLACES):
        gradients = jax.tree.map(jnp.copy, next(iter(made.values())).gradients)
        for stepper in made.values():
            stepper.move(gradients)
        parts.append(interleaved(made, rounds))
    return {name: np.concatenate([part[name] for part in parts]) for name in made}


def shapes_of(task: str) -> Shapes:
    params, _ = jax.eval_shape(pure(TASKS[task].build).init, jax.random.key(0))
    return [leaf.shape for leaf in jax.tree.leaves(params)]


def transformer_shapes() -> Shapes:
    """Returns the shapes of BERT base: 12 blocks of width 768, 110 million parameters."""
    block = [(768, 2304), (768, 768), (768, 3072), (3072, 768), (2304,), (768,), (3072,), *[(768,)] * 5]
    return [(30522, 768), (512, 768), (768,), (768,), *block * 12]


def networks() -> None:
    """Prints a table per network."""
    trees = {
        "ResNet-32": shapes_of("c100-resnet"),
        "c10-cnn1": shapes_of("c10-cnn1"),
        "MLP": shapes_of("mnist-mlp"),
        "transformer": transformer_shapes(),
    }
    baselines = ("sgd", "adam", "layca")
    dtypes = (jnp.float32, jnp.bfloat16)
    for tree, shapes in trees.items():
        size = sum(np.prod(shape) for shape in shapes) / 1e6
        # On the transformer, Muon's matrix products take a minute per step.
        names = [name for name in OPTIMIZERS if tree != "transformer" or name != "muon"]
        times = {d: timed(steppers(shapes, d, names), rounds=9 if size < 50 else 3) for d in dtypes}
        columns = [f"{d.__name__}, ms" + "".join(f" | against {b}" for b in baselines) for d in dtypes]
        print(f"| {tree}, {len(shapes)} leaves, {size:.1f} M | " + " | ".join(columns) + " |")
        print("|---" * (1 + (1 + len(baselines)) * len(dtypes)) + "|")
        for name in names:
            cells = [
                f"{1e3 * np.median(t[name]):.2f} | " + " | ".join(ratio(t, name, b) for b in baselines)
                for t in times.values()
            ]
            print(f"| {name} | " + " | ".join(cells) + " |")
        print(flush=True)


def sizes() -> None:
    """Prints and plots the cost by the number of parameters, in 16 leaves."""
    millions = (1, 3, 10, 30, 100)
    names = [name for name in OPTIMIZERS if name != "muon"]
    compared = [("layca", "sgd"), ("layca", "adam"), ("layca, track_rotation", "layca")]
    nanoseconds = {name: [] for name in names}
    ratios = {pair: [] for pair in compared}
    for million in millions:
        times = timed(steppers([(million * 64, 1024)] * 16, jnp.float32, names), rounds=5)
        for name in names:
            nanoseconds[name].append(1e9 * np.median(times[name]) / (million * 64 * 1024 * 16))
        for pair in compared:
            ratios[pair].append(ratio(times, *pair))
    print("| nanoseconds per parameter | " + " | ".join(f"{million} M" for million in millions) + " |")
    print("|---" * (len(millions) + 1) + "|")
    for name in names:
        print(f"| {name} | " + " | ".join(f"{ns:.2f}" for ns in nanoseconds[name]) + " |")
    for name, baseline in compared:
        print(f"| {name} against {baseline} | " + " | ".join(ratios[name, baseline]) + " |")
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    for i, name in enumerate(names):
        ours = name.startswith("layca")
        marker, width = ("o-", 2) if ours else ("s--", 1)
        axes.plot(millions, nanoseconds[name], marker, color=f"C{i}", lw=width, ms=4, label=name)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="parameters (millions)",
        ylabel="nanoseconds per parameter and step",
    )
    axes.set_xticks(millions, [str(million) for million in millions])
    axes.set_yticks([0.2, 0.5, 1, 2, 5], ["0.2", "0.5", "1", "2", "5"])
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    dearest_first = sorted(range(len(names)), key=lambda i: -nanoseconds[names[i]][-1])
    figure.legend(
        [handles[i] for i in dearest_first],
        [labels[i] for i in dearest_first],
        loc="outside right center",
        frameon=False,
        fontsize=8,
    )
    figure.savefig(FIGURE, dpi=100)
    print(FIGURE, file=sys.stderr)


def leaves() -> None:
    """Prints the cost by the number of leaves: of the first call, which compiles, and of a step."""
    print("| leaves | optimizer | first call, s | against adam | step, ms | against adam |")
    print("|---|---|---|---|---|---|")
    for kind, shapes in {
        "10": [(64, 64)] * 10,
        "100": [(64, 64)] * 100,
        "300": [(64, 64)] * 300,
        "1,000": [(64, 64)] * 1000,
        "1,000 of 100 shapes": [(8 + i % 100, 64) for i in range(1000)],
    }.items():
        made = steppers(shapes, jnp.float32, ("sgd", "adam", "layca", "layca, track_rotation"))
        times = timed(made, rounds=5)
        for name, stepper in made.items():
            first = f"{stepper.first_call:.1f} | {stepper.first_call / made['adam'].first_call:.1f}"
            step = f"{1e3 * np.median(times[name]):.2f} | {ratio(times, name, 'adam')}"
            print(f"| {kind} | {name} | {first} | {step} |", flush=True)


TABLES = {"networks": networks, "sizes": sizes, "leaves": leaves}


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in TABLES:
        print(f"usage: python -m benchmarks.optimizers {'|'.join(TABLES)}", file=sys.stderr)
        return 2
    print(machine(), end="\n\n")
    TABLES[arguments[0]]()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
