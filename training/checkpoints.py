"""Keeps checkpoints of the training state, by orbax."""

import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding, PartitionSpec

from data.writing import FileError, first_line, reraise_os_errors
from training.processes import on_primary


class DamagedError(Exception):
    """Is raised for a checkpoint that cannot be read or is not what was written; the message says why."""


class OtherStateError(Exception):
    """Is raised for the state of another network; the message names the leaves that differ."""


class Checkpoints:
    """Keeps the last three states of a run, by epoch, written in the background, whole or not at all.

    A checkpoint also holds a fingerprint of every leaf, so that a single changed bit is noticed.

    `Session` enters the object and calls `epochs`, `path`, `save`, `restore` and `set_aside`. Another format
    provides these, and promises the same: `restore` raises `DamagedError` or `OtherStateError`, a failed
    write raises `FileError` at the latest on leaving, every process of a run calls every method, and a state
    that was begun but not finished does not appear in `epochs`. The state passed to `save` is donated to the
    next step, so `save` copies it before it returns.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with self._writing():
            self._manager = self._open()

    def epochs(self) -> Sequence[int]:
        """Lists the epochs after which a state was saved, the oldest first."""
        return sorted(self._manager.all_steps())

    def path(self, epoch: int) -> Path:
        return self.folder / str(epoch)

    def save(self, epoch: int, state: Any) -> None:
        """Begins to write a state; a later call raises `FileError` if that fails."""
        item = {"state": state, "fingerprint": _fingerprint(state)}
        with self._writing():
            self._manager.save(epoch, args=ocp.args.StandardSave(item))

    def restore(self, epoch: int, like: Any) -> Any:
        """Returns the state after `epoch`, with the structure, shapes, dtypes and shardings of `like`.

        Raises:
          OtherStateError: it has other leaves.
          DamagedError: it cannot be read.
        """
        with _reading(self.path(epoch)):
            found = _leaves(self._manager.item_metadata(epoch).tree["state"])
        if differences := _differences(_leaves(jax.tree.map(_as_stored, like)), found):
            more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
            raise OtherStateError("; ".join(differences[:3]) + more)
        whole = {"state": like, "fingerprint": jax.tree.map(_like_fingerprint, like)}
        with _reading(self.path(epoch)):
            item = self._manager.restore(epoch, args=ocp.args.StandardRestore(whole))
        same = jax.tree.map(lambda a, b: int(a) == int(b), _fingerprint(item["state"]), item["fingerprint"])
        changed = [path for path, is_same in _leaves(same).items() if not is_same]
        if changed:
            raise DamagedError(f"{changed[0]} is not what was written")
        return item["state"]

    def set_aside(self, epoch: int) -> Path:
        """Moves a checkpoint out of the way, next to the folder of checkpoints; returns where it is now."""
        self._manager.close()
        name = f"damaged-checkpoint-{epoch}"
        places = (self.folder.with_name(f"{name}-{number}" if number > 1 else name) for number in count(1))
        place = next(place for place in places if not place.exists())
        with reraise_os_errors(place):
            on_primary(lambda: self.path(epoch).rename(place))
        self._manager = self._open()
        return place

    def __enter__(self) -> "Checkpoints":
        self._hook = sys.unraisablehook
        sys.unraisablehook = self._report
        logging.getLogger("absl").addFilter(_is_news)
        # Is not removed: asyncio logs what failed in several arrays at once as late as when Python exits.
        logging.getLogger("asyncio").addFilter(_is_news)
        return self

    def __exit__(self, *exception: object) -> None:
        with self._writing():
            try:
                self._manager.wait_until_finished()
            finally:
                self._manager.close()
                sys.unraisablehook = self._hook
                logging.getLogger("absl").removeFilter(_is_news)

    def _report(self, unraisable: Any) -> None:
        # Where one array fails, tensorstore still answers for the others, to an event loop that orbax has
        # closed. The failure is reported once already.
        if str(unraisable.exc_value) != "Event loop is closed":
            self._hook(unraisable)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        # orbax and tensorstore raise all kinds of exceptions.
        with reraise_os_errors(f"a checkpoint in {self.folder}", kinds=Exception):
            try:
                yield
            except ValueError as error:
                # tensorstore names every file on the way to the reason.
                if code := re.search(r"os_error_code='(\d+)'", str(error)):
                    raise OSError(int(code[1]), os.strerror(int(code[1]))) from error
                raise

    def _open(self) -> ocp.CheckpointManager:
        # What a killed run has begun to write is removed.
        options = ocp.CheckpointManagerOptions(max_to_keep=3, create=True, cleanup_tmp_directories=True)
        return ocp.CheckpointManager(
            self.folder.absolute(), options=options, item_handlers=ocp.StandardCheckpointHandler()
        )


def _is_news(record: logging.LogRecord) -> bool:
    """Drops the tracebacks that orbax, or asyncio for its tasks, logs of what is then raised."""
    if not record.exc_info:
        return True
    # A task that only writes a file does not name orbax.
    failed_to_write = isinstance(record.exc_info[1], OSError)
    return not (failed_to_write or "orbax" in record.pathname + record.getMessage())


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise FileError(f"{path} could not be read: {error.strerror}") from error
    except Exception as error:  # all kinds again, also for files that are not there
        raise DamagedError(first_line(error)) from error


@jax.jit
def _fingerprint(state: Any) -> Any:
    """Returns a uint32 scalar per leaf. It changes with any bit of the leaf, and no sharding changes it."""

    def of_leaf(leaf: jax.Array) -> jax.Array:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        if leaf.dtype == bool:
            leaf = leaf.astype(jnp.uint8)
        if jnp.iscomplexobj(leaf):
            leaf = jnp.stack([leaf.real, leaf.imag])
        bits = jax.lax.bitcast_convert_type(leaf, f"uint{8 * min(leaf.dtype.itemsize, 4)}").astype(jnp.uint32)
        # The weights are odd, so that no change is lost modulo 2^32. They differ, so that no two entries can
        # be exchanged unnoticed.
        weights = jnp.uint32(1)
        for axis in range(bits.ndim):
            position = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
            weights = weights * jnp.uint32(0x9E3779B1) + 2 * position
        return jnp.sum(bits * weights, dtype=jnp.uint32)

    return jax.tree.map(of_leaf, state)


def _leaves(tree: Any) -> dict[str, Any]:
    """Returns leaves by path; orbax keeps tuples and named tuples as dictionaries and lists."""
    named = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in named}


def _as_stored(leaf: Any) -> Any:
    """Returns the shape and dtype that orbax stores: random keys are stored as numbers."""
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.eval_shape(jax.random.key_data, leaf) if is_key else leaf


def _like_fingerprint(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = leaf.sharding
    if isinstance(sharding, NamedSharding):
        sharding = NamedSharding(sharding.mesh, PartitionSpec())
    return jax.ShapeDtypeStruct((), jnp.uint32, sharding=sharding)


def _differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    show = lambda leaf: "missing" if leaf is None else f"{tuple(leaf.shape)} {jnp.dtype(leaf.dtype)}"
    return [
        f"{path} is {show(found.get(path))}, should be {show(expected.get(path))}"
        for path in [*expected, *(path for path in found if path not in expected)]
        if show(expected.get(path)) != show(found.get(path))
    ]
