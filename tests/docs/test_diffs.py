"""The diffs of docs/monitoring.md change at most five lines, and their programs run before and after."""

import re
from contextlib import redirect_stdout
from io import StringIO

import pages
import pytest

PAGE = (pages.ROOT / "docs" / "monitoring.md").read_text()
DIFFS = {
    name: (diff.splitlines(), shown)
    for name, diff, shown in re.findall(
        r"^## ([\w ]+)$\n+^```diff\n(.*?)^```$\n+^```text\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE
    )
}


def printed(diff, *, without):
    """Returns what the program prints before the change (`without="+"`) or after it (`without="-"`)."""
    program = "\n".join(line[1:] for line in diff if not line.startswith(without))
    with redirect_stdout(StringIO()) as out:
        exec(compile(program, "a diff of monitoring.md", "exec"), {"__name__": "program"})
    return out.getvalue().splitlines()


def test_every_diff_is_found():
    assert list(DIFFS) == ["Flax NNX", "Equinox", "Flax Linen", "Haiku"]
    assert len(DIFFS) == PAGE.count("```diff")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "Flax NNX" else pytest.mark.slow) for name in DIFFS]
)
def test_at_most_five_lines_change_and_only_rotations_are_printed_in_addition(name):
    diff, shown = DIFFS[name]
    assert {line[:1] for line in diff} == {" ", "+", "-"}
    assert sum(line[0] in "+-" for line in diff) <= 5
    before, after = printed(diff, without="+"), printed(diff, without="-")
    assert after[-len(shown.splitlines()) :] == shown.splitlines()
    assert [line for line in after if not line.startswith(" ")] == before
    layers = [line for line in after if line.startswith(" ")]
    assert len(layers) == 2 * len(before) == 10
