"""Turns every foreseen exception of a command line into one sentence and an exit code."""

import errno
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence

from data import DataError
from data.writing import FileError
from training.config import UsageError
from training.parallel import DeviceError
from training.processes import OtherProcessError, agree, alone, end, only_primary_prints, refuse_start
from training.run import Interrupted

# Every other exception is a bug and shows its traceback.
FORESEEN = (UsageError, DataError, FileError, DeviceError, OtherProcessError, OSError)
# Seconds to wait for another process to say why it ended, before this one reports what it noticed.
_PATIENCE = 2.0


def exit_code(name: str, program: Callable[[], int | None], arguments: Sequence[str] | None = None) -> int:
    """Runs a program and says in one sentence on standard error what ended it.

    Args:
      name: the name of the program, with which the sentence begins.
      program: what to run.
      arguments: those of the command line, by default `sys.argv`; with `--debug` an exception also shows its
        traceback.

    Returns:
      What the program returns; 0 if it was asked to end, 2 if the request or the data are bad, 1 if files,
      devices or other processes ended it.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = 0
        try:
            code = program() or 0
        except Interrupted as reason:
            with only_primary_prints():
                print(reason)
        finally:
            _flush_output()
        agree({}, last=True)
        return code
    except Exception as error:
        foreseen = isinstance(error, FORESEEN)
        if not foreseen and alone():
            raise
        if not foreseen or isinstance(error, OtherProcessError):
            time.sleep(_PATIENCE)
        if not foreseen or "--debug" in arguments:
            traceback.print_exc()
        asked = isinstance(error, (UsageError, DataError)) or getattr(error, "errno", 0) == errno.ENAMETOOLONG
        code = 2 if asked else 1
        if not alone():
            end(_sentence(error), code)
        print(f"{name}: error: {_sentence(error)}", file=sys.stderr)
        if "--distributed" in arguments and not isinstance(error, OtherProcessError):
            refuse_start(_sentence(error))
        return code
    except SystemExit as refused:  # by tyro, which has said why
        if "--distributed" in arguments and refused.code:
            refuse_start("its command line is not valid")
        raise


def _flush_output() -> None:
    """Raises `FileError` if standard output cannot be written, as on a full disk or behind `| head`."""
    try:
        sys.stdout.flush()
    except OSError as error:
        # Python tries again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise FileError(f"standard output could not be written: {error.strerror}") from error


def _sentence(error: Exception) -> str:
    """Returns the message of an exception; for an error of the operating system, its file and reason."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)
