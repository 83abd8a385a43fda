"""The README: its code runs, its two commands come first, its table is what the results say."""

import re
from pathlib import Path

import pytest

from experiments import pairs

README = (Path(__file__).parent.parent / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("code", blocks("python"))
def test_code_runs_and_prints_what_it_says(code, capsys):
    exec(code, {})
    for printed, said in zip(
        capsys.readouterr().out.splitlines(), re.findall(r"^print\(.*\)  # (.*)$", code, re.M), strict=True
    ):
        assert said.startswith(printed)


def test_two_commands_come_before_any_other_install():
    installs = [line for line in README.splitlines() if "pip install" in line]
    assert installs[:2] == [
        'pip install -e ".[train]" && python train.py',
        'pip install -e ".[test]" && pytest',
    ]


def test_pictures_and_links_exist():
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", README) if "://" not in target]
    assert len(targets) >= 4
    assert [target for target in targets if not (Path(__file__).parent.parent / target).exists()] == []


def test_the_table_is_what_the_results_say():
    assert pairs.table(pairs.read()) in README
