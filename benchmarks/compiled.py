"""Compiles steps for GPUs and TPUs on a machine that has none, and counts what they do.

    pip install -e ".[train,accelerators]"     # into an environment of its own
    python -m benchmarks.compiled h100 v5e v5e:2x2 v5e:16x16 training
    python -m benchmarks.compiled --check

`h100` is one GPU, `v5e` one TPU chip; on 4 or 256 chips every array is sharded over all chips. `training` is
the epoch that `train.py` compiles for c10-cnn1; only this and `--check` need the extra `train`. `--check`
compiles less and fails if a bound does not hold.

A step is `optimizer.update` and `optax.apply_updates`, with parameters and state donated.
"""

import argparse
import difflib
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec

import jax

from benchmarks.accelerators import OPTIMIZERS, TARGETS, TRACKED, Step, apart, epoch, steps

TRAINING = "training"
COMPILERS = {"cuda": "jax_cuda13_plugin", "tpu": "libtpu"}
SENTENCES = {
    "bytes": "moves {:.3g} times the parameters' bytes",
    "bytes_against_sgd": "moves {:.3g} times the bytes that sgd moves",
    "kernels_per_leaf": "has {:.3g} kernels per leaf that rotates",
    "seconds_against_adam": "takes {:.3g} times as long to compile as adam",
    "all_reduces": "has {:.3g} all-reduces",
    "other_collectives": "has {:.3g} collectives that move weights between devices",
    "carried": "hands {:.3g} times the parameters' bytes to collectives",
}
_ON_GPU = {
    "layca": {"bytes": 5.2, "kernels_per_leaf": 7},
    TRACKED: {"bytes": 9, "kernels_per_leaf": 12},
}
# The largest allowed values of fields of `Step`, by target and dtype, and by optimizer.
BOUNDS: Mapping[tuple[str, str], Mapping[str, Mapping[str, float]]] = {
    ("h100", "float32"): {
        # The goals are 4 and 8; compile times vary with the load of the machine, so allow 1.5 times as much.
        "layca": {**_ON_GPU["layca"], "seconds_against_adam": 6},
        TRACKED: {**_ON_GPU[TRACKED], "seconds_against_adam": 12},
    },
    ("h100", "bfloat16"): _ON_GPU,
    ("v5e:2x2", "float32"): {"layca": {"bytes_against_sgd": 1.5}},
    ("v5e:16x16", "float32"): {
        "layca": {"all_reduces": 2, "other_collectives": 0, "carried": 0.01},
        TRACKED: {"all_reduces": 4, "other_collectives": 0, "carried": 0.01},
    },
}
# What a step of `train.py --shard-params` may hand to collectives, relative to the parameters: a quarter
# to gather them on four chips, all of them for the gradients, and batch-norm's statistics.
MOST_CARRIED = 1.5


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def named(collectives: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(collectives.items())) or "none"


def print_steps(name: str, dtype: str) -> None:
    """Prints the table of a target."""
    found = apart(steps, TARGETS[name], dtype, list(OPTIMIZERS), 3)
    columns = [
        f"{name}, {dtype}",
        "kernels",
        "bytes / parameters'",
        "against sgd",
        "collectives",
        "they carry, kB",
    ]
    columns += ["temporary, MB", "compile, s", "against adam"]
    print_table(
        columns,
        (
            [
                optimizer,
                f"{step.kernels:,}",
                f"{step.bytes:.2f}",
                f"{step.bytes_against_sgd:.2f}",
                named(step.collectives),
                f"{step.carried_bytes / 1e3:.1f}",
                f"{step.temporary_bytes / 1e6:.1f}",
                f"{step.seconds:.1f}",
                f"{step.seconds_against_adam:.1f}",
            ]
            for optimizer, step in found.items()
        ),
    )


def print_training() -> None:
    """Prints the table of `train.py`'s epoch."""
    columns = ["c10-cnn1", "steps", "state and images, MB", "all memory, MB", "collectives"]
    columns += ["they carry, MB", "/ parameters'", "compile, s"]
    rows = []
    for name, shard_params in (("v5e", False), ("v5e:2x2", False), ("v5e:2x2", True)):
        found = apart(epoch, TARGETS[name], shard_params)
        rows.append(
            [
                name + ", --shard-params" * shard_params,
                str(found.steps),
                f"{found.kept_bytes / 1e6:.0f}",
                f"{found.memory_bytes / 1e6:.0f}",
                named(found.collectives),
                f"{found.carried_bytes / 1e6:.1f}",
                f"{found.carried_bytes / found.parameter_bytes:.2f}",
                f"{found.seconds:.0f}",
            ]
        )
    print_table(columns, rows)


def broken(name: str, dtype: str, found: Mapping[str, Step]) -> Iterator[str]:
    """Yields a sentence per bound that does not hold."""
    for optimizer, limits in BOUNDS[name, dtype].items():
        for field, limit in limits.items():
            value = getattr(found[optimizer], field)
            if not value <= limit:
                allowed = f"{limit:g} are allowed" if limit else "none is allowed"
                sentence = SENTENCES[field].format(value)
                yield f"{name}, {dtype}: the step of `{optimizer}` {sentence}; {allowed}"


def check() -> list[str]:
    """Compiles everything that has bounds (five times if compile time has one); returns broken bounds."""
    problems: list[str] = []
    for (name, dtype), limits in BOUNDS.items():
        rounds = 5 if any("seconds_against_adam" in fields for fields in limits.values()) else 1
        found = apart(steps, TARGETS[name], dtype, ["sgd", "adam", *limits], rounds)
        problems += broken(name, dtype, found)
        for optimizer, fields in limits.items():
            values = ", ".join(f"{field} {getattr(found[optimizer], field):.3g}" for field in fields)
            print(f"{name}, {dtype}: {optimizer}: {values}", flush=True)
    trained = apart(epoch, TARGETS["v5e:2x2"], True)
    carried = trained.carried_bytes / trained.parameter_bytes
    print(f"v5e:2x2, training with --shard-params: carried {carried:.3g}", flush=True)
    if carried > MOST_CARRIED:
        sentence = f"{SENTENCES['carried'].format(carried)}; {MOST_CARRIED} are allowed"
        problems.append(f"v5e:2x2: a step of training with --shard-params {sentence}")
    return problems


def missing_compiler(names: Iterable[str]) -> str | None:
    """Says what to install if a target's compiler is missing."""
    platforms = {TARGETS[name].platform if name in TARGETS else "tpu" for name in names}
    absent = [
        package for platform, package in COMPILERS.items() if platform in platforms and not find_spec(package)
    ]
    if not absent:
        return None
    extras = "train,accelerators" if TRAINING in names else "accelerators"
    return f'{" and ".join(absent)} missing: pip install -e ".[{extras}]" into an environment of its own'


def main(arguments: Sequence[str]) -> int:
    """Runs the command line. Returns the exit code: 1 if a bound does not hold, 2 for wrong arguments."""
    choices = [*TARGETS, TRAINING]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compiled")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(choices))
    parser.add_argument("--check", action="store_true", help="fail if a bound does not hold")
    asked = parser.parse_args(arguments)
    if bool(asked.targets) == asked.check:
        parser.error(f"give --check or targets: {', '.join(choices)}")
    for target in asked.targets:
        if target not in choices:
            close = difflib.get_close_matches(target, choices, n=1, cutoff=0.3)
            # Not `data.catalog.hint`: its packages are not installed here.
            hint = f"did you mean {close[0]}? " if close else ""
            parser.error(f"unknown target {target}: {hint}There are {', '.join(choices)}")
    names = [*(name for name, _ in BOUNDS), TRAINING] if asked.check else asked.targets
    if problem := missing_compiler(names):
        parser.error(problem)
    if asked.check:
        problems = check()
        for problem in problems:
            print(problem, file=sys.stderr)
        return 1 if problems else 0
    print(f"jax {jax.__version__}\n")
    for target in asked.targets:
        if target == TRAINING:
            print_training()
        else:
            for dtype in TARGETS[target].dtypes:
                print_steps(target, dtype)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
