import original_files
import pytest

from data import catalog, files


@pytest.fixture(autouse=True)
def small(monkeypatch):
    original_files.shrink(monkeypatch, *catalog.CATALOG)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Lets no server answer, whatever network the machine has."""

    def refuse(address, timeout):
        raise ConnectionRefusedError

    monkeypatch.setattr(files.urllib.request, "getproxies", dict)
    monkeypatch.setattr(files.socket, "create_connection", refuse)
