"""Connects several processes: they compare their settings, write files once and end together.

jax reports a lost process late and then aborts the others from C++. So every process also has a TCP
connection with the primary process, which forwards messages as lines of JSON.
"""

import json
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from training.config import UsageError

COORDINATOR = "JAX_COORDINATOR_ADDRESS"
# Seconds between two signs of life of a process, and seconds without one after which it counts as lost: it is
# stopped or swapped out, or its machine is gone.
_BEAT, _SILENCE = 4, 20
# Seconds that a process whose command line is refused looks for the others, to tell them.
_FAREWELL = 10
_NUMBERS = ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


class OtherProcessError(Exception):
    """Is raised if another process ended the run or did not start."""


class _Others:
    """Holds the connections of a process: the primary one is connected with every other."""

    def __init__(self, number: int, connections: Mapping[int, socket.socket]) -> None:
        self.number = number
        self._connections = connections
        self._inbox: dict[int, queue.Queue[dict[str, Any]]] = {other: queue.Queue() for other in connections}
        self._lock, self._sending = threading.Lock(), threading.Lock()
        self._over = False
        for other, connection in connections.items():
            threading.Thread(target=self._listen, args=(other, connection), daemon=True).start()
        threading.Thread(target=self._beat, daemon=True).start()

    def agree(self, facts: Mapping[str, object], timeout: float | None, last: bool) -> None:
        """Compares facts on all processes; with `last` they may end from then on."""
        if self.number:
            self._send({"facts": facts})
            verdict = self._receive(0, timeout)["differs"]
        else:
            found = {0: dict(facts)}
            found |= {other: self._receive(other, timeout)["facts"] for other in self._connections}
            verdict = _difference(found)
            self._over = self._over or last or verdict is not None
            self._send({"differs": verdict, "last": last})
        if verdict is not None:
            raise UsageError(f"--distributed: {verdict}")

    def tell(self, message: str) -> None:
        """Ends the others with a message; does not return if one of them is ending this process."""
        with self._lock:
            if not self._over:
                self._over = True
                self._send({"ended": message})

    def _send(self, message: Mapping[str, object]) -> None:
        for connection in self._connections.values():
            with self._sending, suppress(OSError):  # the thread that listens notices that it is gone
                _write(connection, message)

    def _beat(self) -> None:
        while True:
            self._send({})
            time.sleep(_BEAT)

    def _receive(self, other: int, timeout: float | None) -> dict[str, Any]:
        try:
            return self._inbox[other].get(timeout=timeout)
        except queue.Empty:
            raise OtherProcessError(f"process {other} has not answered for {timeout:g} s") from None

    def _listen(self, other: int, connection: socket.socket) -> None:
        reason = f"process {other} ended without a word"
        try:
            for line in connection.makefile("rb"):
                # From its first line on, a process gives signs of life; before, it may wait for others.
                connection.settimeout(_SILENCE)
                message = json.loads(line)
                if "ended" in message:
                    reason = message["ended"]
                    break
                # From here on the other process may end, or all of them raise the same error.
                self._over = self._over or bool(message.get("last")) or message.get("differs") is not None
                if message:
                    self._inbox[other].put(message)
        except TimeoutError:
            reason = f"process {other} has given no sign of life for {_SILENCE} s"
        except (OSError, ValueError):
            pass
        with self._lock:
            if self._over:
                return
            self._send({"ended": reason})
            # Under the lock, so that the main thread prints nothing more.
            print(f"train.py: error: {reason}", file=sys.stderr, flush=True)
            os._exit(1)


_others: _Others | None = None


def _difference(found: Mapping[int, Mapping[str, object]]) -> str | None:
    """Says in which fact processes differ from the primary one, and how; `None` if they do not."""
    for name, expected in found[0].items():
        for other, facts in found.items():
            if facts.get(name) != expected:
                return (
                    f"the processes differ in {name}: {expected} on process 0, {facts.get(name)} on {other}"
                )
    return None


def start_distributed(facts: Mapping[str, object], timeout: float) -> None:
    """Connects this process with the others.

    jax itself finds them under Slurm, Open MPI, Kubernetes and on TPUs. Elsewhere the environment has the
    coordinator's address, the number of processes and the number of this one.

    Args:
      facts: what must be the same on all of them, as JSON has it, by name.
      timeout: seconds to wait for processes that start late.

    Raises:
      UsageError: the environment does not say who the others are, or facts differ.
      OtherProcessError: not all have come in time.
    """
    global _others
    address, count, number = _environment(timeout)
    _others = _Others(number, _connect(address, count, number, timeout) if count > 1 else {})
    agree(facts, timeout=timeout)
    jax.distributed.initialize(address, count, number)


def refuse_start(sentence: str) -> None:
    """Tells the processes that wait for this one that it does not start; gives up after some seconds."""
    with suppress(Exception):  # a wrong environment, or nobody waits: the error is printed already
        address, count, number = _environment(_FAREWELL)
        for connection in _connect(address, count, number, _FAREWELL).values():
            _write(connection, {"ended": f"process {number} ended: {sentence}"})


def _environment(timeout: float) -> tuple[str, int, int]:
    """Returns the coordinator's address, the number of processes and the number of this one."""
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
    # jax has no public name for this.
    from jax._src.clusters import ClusterEnv

    address = os.environ.get(COORDINATOR)
    found = ClusterEnv.auto_detect_unset_distributed_params(address, count, number, None, None, int(timeout))
    address, count, number, _ = found
    if address is None or count is None or number is None:
        raise UsageError(
            f"--distributed: jax finds no cluster here. Set {COORDINATOR} (host:port of process 0),"
            f" {_NUMBERS[0]} and {_NUMBERS[1]} (0, 1, ...)"
        )
    if not address.rpartition(":")[2].isdecimal():
        raise UsageError(f"--distributed: {COORDINATOR} must be host:port, not {address!r}")
    return address, count, number


def _connect(address: str, count: int, number: int, timeout: float) -> dict[int, socket.socket]:
    """Returns the connections of a process, by the number of the process at the other end."""
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + timeout
    late = f"within {timeout:g} s; --start-timeout SECONDS waits longer"
    connections: dict[int, socket.socket] = {}
    if number:
        while not connections:
            try:
                connections[0] = socket.create_connection((host.strip("[]"), int(port)), timeout=1)
                connections[0].settimeout(None)
            except OSError as error:
                if time.monotonic() > deadline:
                    reason = f"process 0 was not found at {address} ({error}) {late}"
                    raise OtherProcessError(reason) from error
                time.sleep(0.2)
        connections[0].sendall(b"%8d" % number)
    else:
        try:
            # jax takes over the port as soon as all processes are connected.
            dual = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if dual else socket.AF_INET
            server = socket.create_server(("", int(port)), family=family, dualstack_ipv6=dual)
        except OSError as error:
            raise UsageError(f"--distributed: cannot listen at {address}: {error.strerror}") from error
        with server:
            while missing := sorted(set(range(1, count)) - connections.keys()):
                try:
                    server.settimeout(max(0.01, deadline - time.monotonic()))
                    connection, _ = server.accept()
                    connection.settimeout(5)  # somebody else may say nothing
                    connections[int(connection.recv(8))] = connection
                    connection.settimeout(None)
                except ValueError:
                    continue
                except OSError:
                    if time.monotonic() < deadline:
                        continue
                    reason = f"process {' and '.join(map(str, missing))} did not start {late}"
                    for connection in connections.values():
                        _write(connection, {"ended": f"process 0 ended: {reason}"})
                    raise OtherProcessError(reason) from None
    return connections


def _write(connection: socket.socket, message: Mapping[str, object]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def agree(facts: Mapping[str, object], *, timeout: float | None = None, last: bool = False) -> None:
    """Waits for all processes and compares facts on them; alone it does nothing.

    Raises:
      UsageError: they differ. All processes raise it.
      OtherProcessError: another process has not answered in `timeout` seconds.
    """
    if _others is not None:
        _others.agree(facts, timeout, last)


def alone() -> bool:
    """Returns whether no other process takes part."""
    return _others is None


def end(sentence: str, code: int) -> NoReturn:
    """Ends all processes: this one with an exit code, the others with this one's sentence."""
    assert _others is not None
    _others.tell(f"process {_others.number} ended: {sentence}")
    print(f"train.py: error: {sentence}", file=sys.stderr, flush=True)
    # Not sys.exit: jax would wait for the others, and abort.
    os._exit(code)


def is_primary() -> bool:
    """Returns whether this is the process that writes and prints."""
    return jax.process_index() == 0


@contextmanager
def only_primary_prints() -> Iterator[None]:
    """Discards the standard output of all other processes."""
    if is_primary():
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield


def any_process(flag: bool) -> bool:
    """Returns whether the flag is set on one of the processes; all of them must ask."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def on_primary(action: Callable[[], object]) -> None:
    """Runs `action` on the primary process while the others wait; what it raises ends them too.

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
        raise OtherProcessError("process 0 ended the run; its message says why")
