"""`python train.py` inside of the tests."""

import train

SHORT = ["--epochs", "2", "--batch-size", "512"]


def command(*arguments):
    """The exit code."""
    try:
        return train.main([str(argument) for argument in arguments])
    except SystemExit as error:  # tyro's way out
        return error.code
