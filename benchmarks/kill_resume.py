"""Kills and resumes a run many times, and compares its results with those of an undisturbed run.

`python -m benchmarks.kill_resume --kills 20`
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

import train
from training.checkpoints import Checkpoints
from training.config import Config
from training.parallel import all_devices
from training.run_folder import RunFolder

ROOT = Path(__file__).parent.parent


def start(folder: Path, epochs: int, batch_size: int) -> subprocess.Popen:
    settings = ["--epochs", str(epochs), "--batch-size", str(batch_size), "--optimizer", "adam"]
    command = [sys.executable, "train.py", *settings, "--resume", "--out", str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)


def finish(process: subprocess.Popen) -> None:
    if process.wait():
        raise SystemExit(f"the run ended with exit code {process.returncode}")


def kill(folder: Path, epochs: int, batch_size: int, chance: random.Random) -> int:
    """Starts or continues the run and kills it (SIGKILL) at a random moment of the remaining epochs.

    Returns:
      The number of epochs done by then.
    """
    process = start(folder, epochs, batch_size)
    metrics = folder / "metrics.jsonl"
    lines = lambda: metrics.read_bytes().count(b"\n") if metrics.exists() else 0
    # Start-up and epochs take longer on slower machines, so count epochs, not seconds.
    before = lines()
    stop_at = before + chance.choice([0, 0, 1, 1, 2, 3])
    while lines() < min(stop_at, epochs - 1) and process.poll() is None:
        time.sleep(0.001)
    # The kill may hit the start-up, an epoch or the writing of a checkpoint.
    time.sleep(chance.uniform(0, 6) if stop_at == before else chance.uniform(0, 0.2))
    process.kill()
    process.wait()
    return lines()


def final_state(folder: Path) -> dict[str, np.ndarray]:
    """Reads all leaves of the state after the last epoch, by path."""
    config = RunFolder(folder).read_config()
    assert isinstance(config, Config)
    devices = all_devices()
    program = train.compile_program(config, devices)
    like = devices.abstract(jax.eval_shape(program.init, np.uint32(0), config.hparams()))
    with Checkpoints(folder / "checkpoint") as checkpoints:
        state = checkpoints.restore(config.epochs, like)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(state)}


def records(folder: Path) -> list[dict[str, Any]]:
    """Reads the metrics, without the times."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{**json.loads(line), "seconds": None} for line in lines]


def compare(kills: int = 20, epochs: int = 40, batch_size: int = 512, seed: int = 0) -> None:
    """Raises `AssertionError` if a killed and resumed run differs from an undisturbed one."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as parent:
        alone, killed = Path(parent) / "alone", Path(parent) / "killed"
        finish(start(alone, epochs, batch_size))
        after = [kill(killed, epochs, batch_size, chance) for _ in range(kills)]
        finish(start(killed, epochs, batch_size))
        found = records(killed)
        assert [record["epoch"] for record in found] == list(range(1, epochs + 1))
        assert found == records(alone)
        states = final_state(alone), final_state(killed)
        assert states[0].keys() == states[1].keys()
        for path, leaf in states[0].items():
            assert leaf.tobytes() == states[1][path].tobytes(), path
        print(f"killed after epochs {', '.join(map(str, after))} of {epochs}")
        print(f"{len(found)} records and {len(states[0])} leaves of the state are the same, bit for bit")


if __name__ == "__main__":
    tyro.cli(compare)
