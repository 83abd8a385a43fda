"""Tests that type checkers accept a script that uses every public name, and find misspelt arguments."""

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import layca_optax

SCRIPT = Path(__file__).parent / "typed_script.py"
ROOT = SCRIPT.parents[2]
# The package pyright downloads its program from npm; basedpyright is the same checker and includes it.
CHECKERS = {
    # optax has no types for mypy.
    "mypy": ["mypy", "--python-executable", sys.executable, "--disable-error-code", "import-untyped"],
    "basedpyright": ["basedpyright", "--level", "error", "--pythonpath", sys.executable],
    "pyrefly": ["pyrefly", "check", "--config", str(ROOT / "pyproject.toml")],
}
every_checker = pytest.mark.parametrize("checker", CHECKERS)


def check(checker, script, folder):
    command = CHECKERS[checker]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{checker} is not installed")
    run = subprocess.run([*command, script], cwd=folder, capture_output=True, text=True)
    return run.returncode, run.stdout + run.stderr


def test_the_script_uses_every_public_name():
    text = SCRIPT.read_text()
    assert [name for name in layca_optax.__all__ if not re.search(rf"\b{name}\b[(.,:\]) ]", text)] == []


@pytest.mark.slow
def test_the_script_runs():
    runpy.run_path(str(SCRIPT))


@pytest.mark.slow
@every_checker
def test_checkers_accept_the_script(checker):
    code, output = check(checker, SCRIPT, ROOT)
    assert code == 0, output


WRONG = """
from layca_optax import describe, layca, track_rotation
layca(rotate="layers")
layca(retraction="exponential")
track_rotation(rotate="neurons")
describe({}, rotate="layer_stack")
layca(flip_sing=False)
"""


@pytest.mark.slow
@every_checker
def test_checkers_see_misspelt_names(checker, tmp_path):
    (tmp_path / "wrong.py").write_text(WRONG)
    code, output = check(checker, tmp_path / "wrong.py", ROOT)
    assert code != 0
    for line in range(3, 8):
        assert re.search(rf"wrong\.py:{line}\b", output), output
