"""English text as bytes: the topics of Python's `help()`, which every installation of CPython contains."""

from importlib import import_module
from typing import NamedTuple

import numpy as np

from data.dataset import DataError

VALIDATION = 0.1


class Text(NamedTuple):
    """Bytes of two consecutive pieces of a text, uint8 of shape `(n,)`."""

    train: np.ndarray
    validation: np.ndarray


def load() -> Text:
    """Loads the topics of Python's built-in help, 370 kB in Python 3.11. Other versions differ a little.

    A paragraph that occurs in several topics is kept once, where it comes first. So none is in both splits.

    Returns:
      The first nine tenths of the bytes for training, the rest for validation.

    Raises:
      DataError: this Python came without its module `pydoc_data.topics`.
    """
    try:
        topics: dict[str, str] = import_module("pydoc_data.topics").topics
    except ModuleNotFoundError:
        raise DataError(
            "this Python has no module pydoc_data.topics, which a full installation of CPython has:"
            " install Python from python.org, your system's python3 package or conda"
        ) from None
    paragraphs = "\n\n".join(topics.values()).split("\n\n")
    text = np.frombuffer("\n\n".join(dict.fromkeys(paragraphs)).encode(), np.uint8)
    train, validation = np.split(text, [round(len(text) * (1 - VALIDATION))])
    return Text(train, validation)
