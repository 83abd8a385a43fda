"""From the command line to a run and its folder, and from what comes of it to an exit code."""

import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import NamedTuple

import tyro

from data import DataError
from data.writing import FileError
from training import processes
from training.config import Config, Flags, UsageError
from training.interruption import Interrupted
from training.run_folder import RunFolder, new_run_path


class Request(NamedTuple):
    """What the command line asks for."""

    flags: Flags
    config: Config
    folder: RunFolder


def read(arguments: list[str] | None = None) -> Request:
    """Connects with other processes if that is asked for; writes nothing.

    Raises:
      UsageError: what is asked for is not possible.
    """
    flags = tyro.cli(Flags, args=arguments, prog="train.py")
    if flags.resume and flags.out is not None:
        folder = RunFolder(flags.out)
        stored = folder.read_config()
        if stored is not None:
            # What the command line leaves out is as the run was started.
            started = Flags(**asdict(stored), tensorboard=folder.tensorboard.is_dir())
            flags = tyro.cli(Flags, args=arguments, prog="train.py", default=started)
    config = flags.resolved()
    path = new_run_path(config.task) if flags.out is None else flags.out
    folder = RunFolder(path, with_tensorboard=flags.tensorboard)
    if flags.distributed:
        processes.start()
    if not flags.describe:
        processes.first_alone(
            lambda: folder.refuse_unless_free(config, resume=flags.resume, overwrite=flags.overwrite)
        )
    return Request(flags, config, folder)


def answer(arguments: list[str] | None, action: Callable[[Request], None]) -> int:
    """Does what the command line asks for.

    Returns:
      The exit code: 0 also for a run that was asked to end; 2 if the request or the data are bad; 1 if files
      cannot be written or read, or another process ended the run.
    """
    try:
        request = read(arguments)
        with processes.only_first_prints():
            try:
                action(request)
            except Interrupted as reason:
                print(reason)
    except (UsageError, DataError) as error:
        print(f"train.py: error: {error}", file=sys.stderr)
        return 2
    except (FileError, processes.OtherProcessError) as error:
        print(f"train.py: error: {error}", file=sys.stderr)
        return 1
    return 0
