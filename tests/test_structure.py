"""Arrays go down only: who may import whom, and what a wheel holds."""

import ast
import re
import sys
from pathlib import Path

import pytest

import layca_optax

ROOT = Path(__file__).parent.parent
FOLDERS = ("layca_optax", "models", "data", "training", "train", "experiments", "benchmarks", "tests")
ALLOWED = {
    "layca_optax": set(),
    "models": set(),
    "data": set(),
    "training": {"layca_optax", "models", "data"},
    "train": {"layca_optax", "models", "data", "training"},
    "experiments": {"layca_optax", "models", "data", "training", "train"},
    "benchmarks": {"layca_optax", "models", "data", "training", "train"},
}


def imports(folder, pattern="*.py"):
    """Names of the packages that a folder's (or file's) modules import, at any depth."""
    path = ROOT / folder
    files = path.rglob(pattern) if path.is_dir() else [path.with_suffix(".py")]
    found = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file} imports relatively"
                found.add(node.module.split(".")[0])
    return found - {folder}


@pytest.mark.parametrize("folder", ALLOWED)
def test_arrays_go_down_only(folder):
    found = imports(folder)
    assert found, "nothing was parsed"
    assert found & set(FOLDERS) <= ALLOWED[folder]


def test_the_library_imports_jax_optax_and_numpy_only():
    assert imports("layca_optax", "_*.py") - set(sys.stdlib_module_names) == {"jax", "optax", "numpy"}
    assert imports("layca_optax", "plot.py") - set(sys.stdlib_module_names) == {"matplotlib", "numpy"}


def test_the_public_surface_is_documented():
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert set(rows) == set(layca_optax.__all__)
    for name in layca_optax.__all__:
        assert getattr(layca_optax, name).__doc__


def test_the_page_on_the_code_names_every_module_of_the_library():
    page = (ROOT / "docs" / "code.md").read_text()
    modules = {path.name for path in (ROOT / "layca_optax").glob("_*.py")} - {"__init__.py"}
    assert set(re.findall(r"^\| `(_\w+\.py)` \|", page, re.MULTILINE)) == modules
