"""Tests which folder may import which, and that the documentation shows it."""

import ast
import re
import runpy
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
    """Returns the names of all packages that a folder's (or file's) modules import, also inside functions."""
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
def test_imports_point_one_way(folder):
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


def reachable(arrows):
    """Returns all pairs of names with a path from one to the other."""
    while more := {(a, d) for a, b in arrows for c, d in arrows if b == c} - arrows:
        arrows = arrows | more
    return arrows


@pytest.mark.parametrize("name", ["house", "library"])
def test_the_pictures_show_what_is_imported(name):
    house = runpy.run_path(str(ROOT / "docs" / "house.py"))
    picture = (ROOT / "docs" / "images" / f"{name}.svg").read_text()
    assert picture == house["drawn"](*house["PICTURES"][name]), "run python docs/house.py"
    if name == "house":
        expected = {(a, b) for a in ALLOWED for b in imports(a) & set(ALLOWED)}
        names = set(ALLOWED)
    else:
        files = {path.stem: path.read_text() for path in (ROOT / "layca_optax").glob("*.py")}
        names = set(files) - {"__init__"}
        lines = re.compile(r"^from layca_optax\.(\w+) import", re.MULTILINE)
        expected = {(a, b) for a in names for b in lines.findall(files[a])}
    assert set(re.findall(r"<text[^>]*>(\w+)<", picture)) == names, "give it a place in docs/house.py"
    assert reachable(set(re.findall(r'id="(\w+)-(\w+)"', picture))) == reachable(expected)
