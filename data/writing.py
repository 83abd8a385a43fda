"""Writing files so that what was there before survives, and saying which file could not be written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FileError(Exception):
    """A file could not be written or read; the message names it. What was written before is whole."""


@contextmanager
def reraise_os_errors(
    what: object, error: type[Exception] = FileError, kinds: type[Exception] = OSError
) -> Iterator[None]:
    """Turns the operating system's errors, which often name no file, into `error`.

    Args:
      what: what is written: a path as a rule.
      error: the exception to raise instead.
      kinds: the exceptions to turn, where a library has more kinds than `OSError`.
    """
    try:
        yield
    except kinds as cause:
        reason = getattr(cause, "strerror", None) or first_line(cause)
        raise error(f"{what} could not be written: {reason}") from cause


@contextmanager
def atomic_write(path: Path, error: type[Exception] = FileError) -> Iterator[Path]:
    """A path to write to, which replaces `path` once all is written; after an error `path` is as it was.

    Raises `error`, which names `path`, where the operating system refuses. Processes that write the same
    file at once do not disturb each other: the last one to end stays.
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
    """What an exception says, without the lines that some libraries add."""
    return str(error).strip().split("\n")[0] or type(error).__name__
