"""How the commands of this folder end: as `train.py` does."""

import errno
import sys
import traceback
from collections.abc import Callable, Sequence

from data import DataError
from data.writing import FileError
from training.config import UsageError
from training.parallel import DeviceError
from training.run import Interrupted


def exit_code(program: str, command: Callable[[], int | None], arguments: Sequence[str] | None) -> int:
    """Runs a command, and turns what a user can bring about into one sentence.

    Args:
      program: what the sentence begins with.
      command: does everything, from parsing the arguments on.
      arguments: those of the command; with `--debug` among them, there is a traceback too.

    Returns:
      What `command` returns, or 0, also if it was asked to end; 2 if the request or the data are bad; 1 if
      files cannot be written or read.
    """
    try:
        return command() or 0
    except Interrupted as reason:
        print(reason)
        return 0
    except (UsageError, DataError, FileError, DeviceError, OSError) as error:
        if "--debug" in (sys.argv if arguments is None else arguments):
            traceback.print_exc()
        # Errors of the operating system name their file in their own order.
        named = isinstance(error, OSError) and error.filename is not None
        print(
            f"{program}: error: {f'{error.filename}: {error.strerror}' if named else error}", file=sys.stderr
        )
        asked = isinstance(error, (UsageError, DataError)) or getattr(error, "errno", 0) == errno.ENAMETOOLONG
        return 2 if asked else 1
