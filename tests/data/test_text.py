import sys

import numpy as np
import pytest

from data import DataError, text


def test_english_bytes_in_two_parts():
    data = text.load()
    assert data.train.dtype == data.validation.dtype == np.uint8
    assert data.train.ndim == data.validation.ndim == 1
    total = len(data.train) + len(data.validation)
    assert 300_000 < total < 600_000
    assert len(data.validation) == pytest.approx(0.1 * total, abs=1)
    assert b"The standard type hierarchy" in data.train.tobytes()


def test_no_paragraph_is_there_twice():
    data = text.load()
    paragraphs = np.concatenate(data).tobytes().split(b"\n\n")
    assert len(paragraphs) == len(set(paragraphs)) > 1000


def test_a_python_without_the_text_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(DataError, match=r"pydoc_data\.topics, which a full installation"):
        text.load()
