"""Runs `python train.py` inside the process of the tests."""

import train

SHORT = ["--epochs", "2", "--batch-size", "512"]


def command(*arguments):
    """Runs a command line and returns its exit code."""
    try:
        return train.main([str(argument) for argument in arguments])
    except SystemExit as error:  # raised by tyro
        return error.code
