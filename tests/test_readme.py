"""The README: its code runs, its two commands come first, its table is what the results say."""

import pages

from experiments import pairs

PAGE = pages.ROOT / "README.md"
README = PAGE.read_text()


def test_code_runs_and_prints_what_it_says():
    assert "layca" in pages.run(PAGE)


def test_two_commands_come_before_any_other_install():
    installs = [line for line in README.splitlines() if "pip install" in line]
    assert installs[:2] == [
        'pip install -e ".[train]" && python train.py',
        'pip install -e ".[test]" && pytest',
    ]


def test_pictures_and_links_exist():
    assert pages.broken_links(PAGE) == []


def test_the_table_is_what_the_results_say():
    assert pairs.table(pairs.read()) in README
