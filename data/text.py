"""English text as bytes: the language topics of `help()`, which every installation of CPython carries."""

from importlib import import_module
from typing import NamedTuple

import numpy as np

from data.dataset import DataError

VALIDATION = 0.1


class Text(NamedTuple):
    """Bytes in the order of the text, one axis, uint8."""

    train: np.ndarray
    validation: np.ndarray


def load() -> Text:
    """The topics of Python's built-in help: 370 kB in Python 3.11, other versions differ a little.

    A paragraph that stands under several topics is kept once, where it comes first, so that none is both
    trained on and validated on.

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
