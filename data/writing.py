"""Writes files so that what was there before survives, and says which file could not be written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FileError(Exception):
    """Says which file could not be written or read. What was written before is whole."""


@contextmanager
def reraise_os_errors(
    what: object, error: type[Exception] = FileError, kinds: type[Exception] = OSError
) -> Iterator[None]:
    """Raises `error`, which names `what`, in place of the operating system's errors and other `kinds`."""
    try:
        yield
    except kinds as cause:
        reason = getattr(cause, "strerror", None) or first_line(cause)
        raise error(f"{what} could not be written: {reason}") from cause


@contextmanager
def atomic_write(path: Path, error: type[Exception] = FileError) -> Iterator[Path]:
    """Yields a path to write to, which replaces `path` at the end; after an error `path` is as it was.

    Raises `error`, which names `path`, where the operating system refuses. Processes may write the same file
    at once: the last one to end wins.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with reraise_os_errors(path, error):
        try:
            yield part
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def first_line(error: Exception) -> str:
    """Returns what an exception says, without the lines that some libraries add."""
    return str(error).strip().split("\n")[0] or type(error).__name__
