"""The datasets that are read from files, by name."""

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from data.cifar import CIFAR10, CIFAR100
from data.dataset import DataError
from data.entry import Entry
from data.mnist import FASHION_MNIST, MNIST
from data.tiny_imagenet import TINY_IMAGENET

CATALOG: Mapping[str, Entry] = MappingProxyType(
    {entry.name: entry for entry in (MNIST, FASHION_MNIST, CIFAR10, CIFAR100, TINY_IMAGENET)}
)


def hint(name: str, choices: Iterable[str]) -> str:
    """Returns the end of a message about a misspelt name: the nearest of the choices, if any is near."""
    close = difflib.get_close_matches(name, list(choices), n=1)
    return f" Did you mean {close[0]}?" if close else ""


def find_entry(name: str) -> Entry:
    """Returns the entry of that name; raises `DataError` if there is none."""
    if name not in CATALOG:
        raise DataError(
            f"no dataset is called {name!r}; there are {', '.join(CATALOG)}.{hint(name, CATALOG)}"
        )
    return CATALOG[name]
