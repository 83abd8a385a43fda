"""Measures Layca on an accelerator for half an hour, in several calls; each continues the last.

    python -m benchmarks.accelerator --minutes 9 --data-dir DIR

A call measures as much as fits into its minutes, the most important first, and prints all results so far. The
pieces are: a, Layca's accuracy and its tests on the device, at most 4 minutes; b, steps of optimizers, 6; c,
training, 5; d, the paper's runs (`experiments.first`), in the remaining time. The folder `--out` has JSON
lines per piece, all output and the runs' logs; compiled programs are in a folder beside it. `--smoke` does a
little of everything in about a minute, also on a CPU, to test this program; its numbers mean nothing.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

ROOT = Path(__file__).parent.parent
# Seconds per piece, all calls together.
LIMITS = {"a": 240.0, "b": 360.0, "c": 300.0, "d": float("inf")}
SMOKE = {"a": 30.0, "b": 15.0, "c": 60.0, "d": 20.0}
# Seconds that a piece has to save its results, and the fewest seconds for which one is started.
GRACE, SHORTEST = 25.0, 8.0
# Tests of the library's numbers, by parts of their files' names, the most important first.
TESTS = (
    *("layca", "arithmetic", "compliance", "one_pass", "rotate", "rotation", "track", "skip_nonfinite"),
    *("rates", "alpha", "sgd_amom", "precision"),
)
# These need eight devices.
NOT_HERE = {"sharding", "processes", "devices"}
OUTCOMES = ("PASSED", "FAILED", "ERROR", "SKIPPED")


@dataclass(frozen=True)
class Flags:
    """Measure as much as fits into some minutes on an accelerator; the next call continues."""

    minutes: float = 9.0
    """How long this call may take."""
    out: Path | None = None
    """Folder of the results; by default runs/accelerator, or runs/accelerator-smoke with --smoke."""
    data_dir: str | None = None
    """Folder that contains `cifar10`, for the paper's runs."""
    pieces: str = "abcd"
    """Which pieces to measure."""
    smoke: bool = False
    """Do a little of everything, on small networks."""

    @property
    def folder(self) -> Path:
        """Returns `out` as an absolute path."""
        return (self.out or Path("runs/accelerator-smoke" if self.smoke else "runs/accelerator")).absolute()


class Records:
    """The JSON lines of a piece: one line when a unit begins, one with its results."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        lines = self._path.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("}\n")]

    def append(self, **record: Any) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def found(self) -> dict[str, dict[str, Any]]:
        """Returns the results, including failures, by unit."""
        return {record["unit"]: record for record in self.read() if "begun" not in record}

    def begun(self, unit: str) -> int:
        return sum(record["unit"] == unit and "begun" in record for record in self.read())


def work(piece: str, out: Path, smoke: bool) -> None:
    """Measures the units of a piece, except those that are finished or have been begun twice."""
    import gc

    import jax

    from benchmarks.on_device import UNITS

    records = Records(out / f"{piece}.jsonl")
    device = jax.devices()[0].device_kind
    for unit, measure in UNITS[piece](smoke):
        if unit in records.found() or records.begun(unit) > 1:
            continue
        records.append(unit=unit, begun=True)
        try:
            found = dict(measure())
        except Exception as error:  # if one unit fails (out of memory, say), go on with the others
            found = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
        records.append(unit=unit, device=device, **found)
        gc.collect()


def run(commands: Sequence[Sequence[str]], seconds: float, log: Path, environment: Mapping[str, str]) -> None:
    """Runs commands in parallel; after `seconds` sends SIGTERM, and `GRACE` seconds later SIGKILL."""
    started: list[subprocess.Popen] = []

    def send(number: int) -> None:
        for process in started:
            if process.poll() is None:
                os.killpg(process.pid, number)

    def ended(seconds: float) -> bool:
        until = time.monotonic() + seconds
        while any(process.poll() is None for process in started) and time.monotonic() < until:
            time.sleep(0.1)
        return all(process.poll() is not None for process in started)

    with log.open("a") as file:
        options: dict[str, Any] = {"stdout": file, "stderr": subprocess.STDOUT, "process_group": 0}
        try:
            for command in commands:
                everything = {**os.environ, **environment}
                started.append(subprocess.Popen(command, cwd=ROOT, env=everything, **options))
            if not ended(seconds):
                send(signal.SIGTERM)
                ended(GRACE)
        finally:
            send(signal.SIGKILL)
            ended(10.0)


def tests(smoke: bool) -> list[str]:
    """Returns the command that runs the library's tests of numbers on one device."""
    names = ("sgd_amom",) if smoke else TESTS
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    files = [path for path in files if not NOT_HERE & set(path.stem.split("_"))]
    chosen = [path for name in names for path in files if name in path.stem]
    options = ["-vv", "-rfE", "--tb=short", "-n", "0" if smoke else "8", "--dist", "load"]
    # If pytest-benchmark is installed, it warns of xdist, and warnings are errors.
    options += ["-p", "no:cacheprovider", "-p", "no:benchmark"]
    paths = [str(path.relative_to(ROOT)) for path in dict.fromkeys(chosen)]
    return [sys.executable, "-m", "pytest", *options, *paths]


def side_by_side(found: Mapping[str, Mapping[str, Any]]) -> int:
    """Returns how many processes trained over 10 % more images per second than one, in piece c; else 1."""
    speeds: dict[int, float] = {}
    for unit, record in found.items():
        if several := re.search(r"\| layca(?:, (\d+) processes)?$", unit):
            speeds.setdefault(int(several[1] or 1), record.get("images/s", 0.0))
    best = max(speeds, key=speeds.__getitem__, default=1)
    return best if best > 1 and speeds[best] > 1.1 * speeds.get(1, float("inf")) else 1


def commands(piece: str, flags: Flags) -> list[list[str]]:
    """Returns the commands to run in parallel for a piece."""
    if piece != "d":
        more = ["--smoke"] if flags.smoke else []
        return [[sys.executable, "-m", "benchmarks.accelerator", "work", piece, str(flags.folder), *more]]
    preset = "laptop" if flags.smoke else "paper"
    count = side_by_side(Records(flags.folder / "c.jsonl").found())
    folder = [] if flags.data_dir is None else ["--data-dir", str(Path(flags.data_dir).absolute())]
    common = ["--preset", preset, "--results", str(flags.folder / "results"), *folder]
    first = [sys.executable, "-m", "experiments.first", *common, "--share"]
    return [[*first, str(part), str(count)] for part in range(count)]


def measure(flags: Flags) -> None:
    """Measures the remaining pieces, each within its limit, until the minutes are over."""
    ends = time.monotonic() + 60 * flags.minutes - GRACE
    limits, calls = SMOKE if flags.smoke else LIMITS, Records(flags.folder / "calls.jsonl")
    usual = {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "JAX_COMPILATION_CACHE_DIR": str(flags.folder.with_name(flags.folder.name + "-compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
    }
    for piece in flags.pieces:
        used = sum(record["seconds"] for record in calls.read() if record["unit"] == piece)
        parts = [(commands(piece, flags), flags.folder / f"{piece}.txt", usual)]
        said = flags.folder / "tests.txt"
        if piece == "a" and not (said.exists() and re.search(r" in [\d.]+s", said.read_text())):
            # Tests compare with float64, also the outputs of networks, so nothing may be rounded to TF32.
            exact = {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}
            parts.append(([tests(flags.smoke)], said, usual | exact))
        for together, log, environment in parts:
            left = min(ends - time.monotonic(), limits[piece] - used)
            if left >= SHORTEST:
                started = time.monotonic()
                run(together, left, log, environment)
                calls.append(unit=piece, seconds=time.monotonic() - started)
                used += time.monotonic() - started


def compared(records: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Adds speeds relative to the copy, and times relative to SGD and Adam on the same tree or task."""
    copy = records.get("copy", {}).get("GB/s")
    more: dict[str, dict[str, Any]] = {}
    for unit, record in records.items():
        more[unit] = dict(record)
        if copy and "GB/s" in record:
            more[unit]["of copy"] = record["GB/s"] / copy
        column = "ms" if "ms" in record else "ms per step"
        for name in ("sgd", "adam"):
            other = records.get(f"{unit.rpartition(' | ')[0]} | {name}", {}).get(column)
            if other and column in record:
                more[unit][f"against {name}"] = record[column] / other
    return more


def table(records: Mapping[str, Mapping[str, Any]]) -> str:
    """Formats a table with a row per unit and a column per number; a failed unit shows its error."""
    skipped = ("unit", "device", "error", "machine")
    columns = list(dict.fromkeys(name for r in records.values() for name in r if name not in skipped))
    rows = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for unit, record in records.items():
        cells = [record["error"]] if "error" in record else [_cell(record.get(name, "")) for name in columns]
        rows.append(f"| {unit.replace(' | ', ', ')} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _cell(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def report(out: Path) -> str:
    """Formats all results so far as tables."""
    parts = []
    for piece in "abc":
        found = Records(out / f"{piece}.jsonl").found()
        devices = {record["device"] for record in found.values()}
        if found:
            parts.append(f"{piece}, on {' and '.join(sorted(devices))}\n\n{table(compared(found))}")
    if (out / "tests.txt").exists():
        said = (out / "tests.txt").read_text()
        lines = [line for line in said.splitlines() if "::" in line and "%]" in line]
        counts = [f"{sum(f' {word} ' in line for line in lines)} {word}" for word in OUTCOMES]
        failed = re.findall(r"^(?:FAILED|ERROR) .*", said, re.MULTILINE)
        parts.append("\n".join([f"tests: {', '.join(counts)}", *dict.fromkeys(failed)]))
    for path in sorted(out.glob("results/*/*.jsonl")):
        for line in map(json.loads, path.read_text().splitlines()):
            config = line["config"]
            named = [config["task"], config["optimizer"], "Layca" if config["layca"] else "alone"]
            numbers = ("learning_rate", "alpha", "weight_decay", "seed")
            named += [f"{name} {config[name]:.3g}" for name in numbers]
            where = [line.get("data", {}).get("name", "embedded"), line["device"], line["matmul_precision"]]
            found = f"test accuracy {line['test_accuracy']:.4f}, {line['seconds']:.0f} s"
            parts.append(f"{', '.join(named)}: {found}; {', '.join(where)}")
    return "\n\n".join(parts)


def main(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["work"]:
        work(arguments[1], Path(arguments[2]), "--smoke" in arguments)
        return 0
    flags = tyro.cli(Flags, args=list(arguments), prog="python -m benchmarks.accelerator")
    if unknown := set(flags.pieces) - set(LIMITS):
        print(f"error: --pieces must be of {', '.join(LIMITS)}, not {min(unknown)!r}", file=sys.stderr)
        return 2
    out = flags.folder
    out.mkdir(parents=True, exist_ok=True)
    measure(flags)
    said = report(out)
    (out / "report.md").write_text(said + "\n")
    print(said)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
