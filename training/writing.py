"""Writing files so that what was there before survives, and saying which file could not be written."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FileError(Exception):
    """A file could not be written or read; the message names it. What was written before is whole."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turns the operating system's errors, which often name no file, into `FileError`."""
    try:
        yield
    except OSError as error:
        raise FileError(f"{path} could not be written: {error.strerror or error}") from error


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write to, which replaces `path` once all is written; after an error `path` is as it was."""
    part = path.with_name(path.name + ".part")
    with naming(path):
        try:
            yield part
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
