"""Disturbs runs of `train.py` as users and machines do, and compares their results with an undisturbed run's.

    python -m benchmarks.faults

Runs are killed, sent signals, started twice in one folder, and given disks that are too small. Each must end
with the right exit code and say so in one sentence, without a traceback. Resumed, it must end with the
records and the state of the undisturbed run, bit for bit. `faults.jsonl` has a line per fault; `wrong` lists
what was not as it should be.
"""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.timing import machine
from benchmarks.undisturbed import (
    EPOCHS,
    ROOT,
    SETTINGS,
    Ended,
    Undisturbed,
    epochs,
    finish,
    start,
    wait_for,
)

# In namespaces of their own users may mount disks, where the system allows namespaces.
NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
INSIDE = "LAYCA_FAULTS_NAMESPACE"
PAGE = 4096


def case(
    fault: str,
    folder: Path,
    ended: Ended,
    exit_code: int,
    says: str = "",
    wrong: Sequence[str] = (),
    **more: Any,
) -> dict[str, Any]:
    """Returns the line of a fault.

    Args:
      fault: its name.
      folder: that of the run; the line calls it RUN.
      ended: how the process ended.
      exit_code: how it should have ended.
      says: how its last sentence should begin: of its output, or of its errors if the exit code is above 0.
      wrong: what else is wrong.
      more: further fields.
    """
    lines = ended.err if exit_code > 0 else ended.out
    sentence = lines[-1] if says and lines else ""
    found = [*wrong]
    if ended.exit_code != exit_code:
        found.append(f"the exit code should be {exit_code}: {' '.join(ended.err[-3:])}")
    if not sentence.startswith(says):
        found.append(f"it should say {says}")
    if ended.traceback() or (exit_code > 0 and len(lines) != 1):
        found.append(f"it printed {len(ended.err)} lines of errors, not one sentence")
    said = sentence.replace(str(folder), "RUN")
    return {"fault": fault, **more, "exit_code": ended.exit_code, "said": said, "wrong": found}


def reach_an_epoch(process: subprocess.Popen[str], folder: Path, chance: random.Random) -> None:
    """Waits for a random moment in the first half of a run."""
    epoch = chance.randrange(1, EPOCHS // 2)
    wait_for(process, lambda: epochs(folder) >= epoch)
    time.sleep(chance.uniform(0, 0.1))


def killed(undisturbed: Undisturbed, folder: Path, kills: int, chance: random.Random) -> Iterator[dict]:
    """Kills one run again and again at random moments: while it starts, computes or saves."""
    for number in range(1, kills + 1):
        before = epochs(folder)
        # Start-up and epochs take longer on slower machines, so count epochs, not seconds.
        stop_at = min(before + chance.choice([0, 0, 0, 1, 1, 2]), EPOCHS - 1)
        process = start(folder, "--resume")
        wait_for(process, lambda stop_at=stop_at: epochs(folder) >= stop_at)
        time.sleep(chance.uniform(0, 6) if stop_at == before else chance.uniform(0, 0.2))
        process.kill()
        ended, done = finish(process), epochs(folder)
        wrong = undisturbed.resumed(folder) if number == kills else []
        yield case("kill -9", folder, ended, -signal.SIGKILL, wrong=wrong, epochs=done)


def signalled(undisturbed: Undisturbed, place: Path, chance: random.Random) -> Iterator[dict]:
    """Sends the signals that ask a run to end, and resumes it with the command that it prints."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        folder = place / number.name
        process = start(folder)
        reach_an_epoch(process, folder, chance)
        process.send_signal(number)
        ended, done = finish(process), epochs(folder)
        says = f"ended by {number.name} after epoch {done} of {EPOCHS}, saved after epoch {done}; to go on: "
        says += "python "
        wrong = undisturbed.resumed(folder, shlex.split("".join(ended.out[-1:]).removeprefix(says)))
        if ended.err != ["", f"{number.name}: ends after this epoch; Ctrl-C aborts at once"]:
            wrong.append("it should say at once that it will end")
        yield case(number.name, folder, ended, 0, says, wrong, epochs=done)

    folder = place / "twice"
    process = start(folder)
    assert process.stderr is not None
    reach_an_epoch(process, folder, chance)
    process.send_signal(signal.SIGINT)
    answer = process.stderr.readline() + process.stderr.readline()
    process.send_signal(signal.SIGINT)
    ended, done = finish(process), epochs(folder)
    wrong = undisturbed.resumed(folder)
    if "aborts at once" not in answer or ended.err:
        wrong.append(f"it should say one sentence, not {answer} {ended.err}")
    yield case("SIGINT twice", folder, ended, -signal.SIGINT, wrong=wrong, epochs=done)


def terminal_lost(undisturbed: Undisturbed, folder: Path, chance: random.Random) -> Iterator[dict]:
    """Closes the terminal of a run, as a lost ssh connection does: it gets SIGHUP and can print no more."""
    ours, theirs = os.openpty()
    command = ["setsid", "--ctty", sys.executable, "train.py", *SETTINGS, "--out", str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, text=True)
    os.close(theirs)
    reach_an_epoch(process, folder, chance)
    os.close(ours)
    ended, done = finish(process), epochs(folder)
    wrong = undisturbed.resumed(folder)
    if not 0 < done < EPOCHS:
        wrong.append("it should end after the epoch")
    yield case("terminal lost", folder, ended, 0, wrong=wrong, epochs=done)


def folder_taken(undisturbed: Undisturbed, folder: Path, chance: random.Random) -> Iterator[dict]:
    """Starts other runs in the folder of a run."""
    first = start(folder)
    reach_an_epoch(first, folder, chance)
    # It waits for the others, which take seconds to start.
    first.send_signal(signal.SIGSTOP)
    for flags in ((), ("--resume",), ("--overwrite",)):
        reason = ": another run is writing there" if flags else " holds a run already"
        ended = finish(start(folder, *flags))
        name = " ".join(["folder taken", *flags])
        yield case(name, folder, ended, 2, f"train.py: error: --out {folder}{reason}")
    first.send_signal(signal.SIGCONT)
    ended = finish(first)
    wrong = undisturbed.differences(folder)
    yield case("folder taken: its run", folder, ended, 0, "test accuracy ", wrong)


def two_at_once(undisturbed: Undisturbed, folder: Path) -> Iterator[dict]:
    """Starts two runs in one new folder."""
    one, other = sorted(map(finish, [start(folder), start(folder)]))
    wrong = undisturbed.differences(folder)
    yield case("two at once: one trains", folder, one, 0, "test accuracy ", wrong)
    yield case("two at once: the other", folder, other, 2, f"train.py: error: --out {folder}")


def disk_full(undisturbed: Undisturbed, disk: Path, sizes: int) -> Iterator[dict]:
    """Gives runs disks from a page to 4/3 of the space that their files need, and then makes room."""
    folder, pages = disk / "run", 0
    for size in np.geomspace(PAGE, 4 / 3 * undisturbed.bytes, sizes):
        pages = max(pages + 1, round(size / PAGE))
        bytes = pages * PAGE
        with mounted(disk, bytes):
            ended, done = finish(start(folder)), epochs(folder)
            mount(disk, f"remount,size={2 * undisturbed.bytes}")
            wrong = undisturbed.resumed(folder)
        if ended.exit_code == 0:  # The run fits.
            yield case("full disk", folder, ended, 0, "test accuracy ", wrong, bytes=bytes, epochs=done)
        else:
            if not "".join(ended.err).endswith(" could not be written: No space left on device"):
                wrong.append("it should say that the disk is full")
            yield case("full disk", folder, ended, 1, "train.py: error: ", wrong, bytes=bytes, epochs=done)


@contextmanager
def mounted(disk: Path, size: int) -> Iterator[None]:
    """Mounts a disk of `size` bytes of memory."""
    disk.mkdir(exist_ok=True)
    mount(disk, f"size={size}")
    try:
        yield
    finally:
        subprocess.run(["umount", disk], check=True)


def mount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], check=True)


def main(
    kills: int = 20, sizes: int = 30, log: Path = ROOT / "benchmarks" / "faults.jsonl", seed: int = 0
) -> int:
    """Disturbs runs in all ways, one after the other.

    Args:
      kills: how often a run is killed.
      sizes: how many sizes of disks are tried.
      log: the file that gets a line per fault.
      seed: chooses the moments.

    Returns:
      0 if nothing was wrong, otherwise 1.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        # A background job or `nohup` ignores these, and runs would inherit that. They inherit no handler.
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    with tempfile.TemporaryDirectory() as parent, log.open("w") as file:
        # All runs share one compiled program.
        os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{parent}/compiled"
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        place, chance = Path(parent), random.Random(seed)
        undisturbed = Undisturbed(place / "undisturbed")
        file.write(json.dumps({"machine": machine(), "epochs": EPOCHS, "bytes": undisturbed.bytes}) + "\n")
        cases = [
            killed(undisturbed, place / "killed", kills, chance),
            signalled(undisturbed, place, chance),
            terminal_lost(undisturbed, place / "terminal", chance),
            folder_taken(undisturbed, place / "taken", chance),
            two_at_once(undisturbed, place / "two"),
        ]
        if INSIDE in os.environ:
            cases.append(disk_full(undisturbed, place / "disk", sizes))
        else:
            print("full disks are left out: this system does not let a user mount one")
        found = []
        for line in chain.from_iterable(cases):
            found.append(line)
            print(f"{line['fault']}: exit code {line['exit_code']}", *line["wrong"], sep="; ", flush=True)
            file.write(json.dumps(line) + "\n")
            file.flush()
    wrong = sum(1 for line in found if line["wrong"])
    print(f"{len(found)} faults, {wrong} that did not end as they should; see {log}")
    return int(wrong > 0)


def enter_namespace() -> None:
    """Starts this program again where it may mount disks, if the system has such a place."""
    try:
        subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return
    command = [*NAMESPACE, sys.executable, "-m", "benchmarks.faults", *sys.argv[1:]]
    os.execvpe(command[0], command, {**os.environ, INSIDE: "1"})


if __name__ == "__main__":
    if INSIDE not in os.environ:
        enter_namespace()
    sys.exit(tyro.cli(main))
