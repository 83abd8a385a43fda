"""The README's code runs, its two commands come first, and its tables are those of the logs."""

import ast
import re

import numpy as np
import pages
import pytest

from experiments import readme
from layca_optax import rotation_report

PAGE = pages.ROOT / "README.md"
README = PAGE.read_text()


def test_code_runs_and_gives_the_report_that_is_shown():
    report = rotation_report(pages.run(PAGE)["state"])["kernel"]
    shown = ast.literal_eval(re.search(r"`(\{'kernel': .*\})`", README).group(1))["kernel"]
    assert report == pytest.approx(shown, rel=5e-3)
    assert report["last_step"] == pytest.approx(np.arctan(3**-4), rel=1e-5)


def test_two_commands_come_before_any_other_install():
    installs = [line for line in README.splitlines() if "pip install" in line]
    assert installs[:2] == [
        'pip install -e ".[train]" && python train.py',
        'pip install -e ".[test]" && pytest',
    ]


def test_pictures_and_links_exist():
    assert pages.broken_links(PAGE) == []


def test_the_linked_tables_are_what_the_logs_say():
    text = (pages.ROOT / "experiments" / "README.md").read_text()
    assert readme.table(readme.panels()) in text
    assert readme.margins() in text
