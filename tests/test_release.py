"""Tests what is released: metadata, the sdist, and a wheel that contains and needs the library only."""

import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from email.parser import Parser

import pages
import pytest

import layca_optax

ROOT = pages.ROOT
VERSION = layca_optax.__version__


def test_the_citation_has_the_version():
    assert f"\nversion: {VERSION}\n" in (ROOT / "CITATION.cff").read_text()


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """Builds an sdist, and a wheel from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.mark.slow
def test_the_sdist_has_what_its_tests_and_pages_need(dist):
    (archive,) = dist.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    for folder in ("layca_optax", "models", "data", "training", "experiments", "benchmarks", "tests", "docs"):
        files = {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*") if path.is_file()}
        assert {name for name in files if "__pycache__" not in name} <= names
    assert {"train.py", "docs/conf.py", "README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE"} <= names


@pytest.mark.slow
def test_the_wheel_is_the_library_alone(dist):
    (archive,) = dist.glob("*.whl")
    with zipfile.ZipFile(archive) as wheel:
        names = set(wheel.namelist())
        metadata = Parser().parsestr(wheel.read(f"layca_optax-{VERSION}.dist-info/METADATA").decode())
    library = {path for path in (ROOT / "layca_optax").iterdir() if path.is_file()}
    assert {name for name in names if ".dist-info/" not in name} == {f"layca_optax/{p.name}" for p in library}
    assert "layca_optax/py.typed" in names
    assert f"layca_optax-{VERSION}.dist-info/licenses/LICENSE" in names
    needs = [need for need in metadata.get_all("Requires-Dist") if "extra ==" not in need]
    assert sorted(re.match(r"[\w-]+", need)[0] for need in needs) == ["jax", "numpy", "optax"]
    assert metadata["License-Expression"] == "Apache-2.0"


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_environment(dist, tmp_path):
    (wheel,) = dist.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", wheel], check=True, capture_output=True)
    (example,) = re.findall(
        r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE
    )
    program = f"{example}\nimport layca_optax\nprint(layca_optax.__file__, rotation_report(state))"
    run = subprocess.run([python, "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert str(tmp_path) in run.stdout
    assert "{'kernel': {'from_init': " in run.stdout
