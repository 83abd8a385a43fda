"""Runs the code of Markdown pages and checks what it prints; checks links, also of notebooks."""

import functools
import json
import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

ROOT = Path(__file__).parent.parent

_PYTHON = re.compile(r"^```python\n(.*?)^```$(?:\n+^```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)
_FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


@functools.cache
def run(page: Path) -> dict:
    """Runs a page's Python blocks, in order and in one namespace, which it returns.

    What a block prints must be what the page says, either in a comment behind each `print`, after which the
    comment may go on, or whole in the `text` block that follows.
    """
    namespace = {}
    blocks = _PYTHON.findall(page.read_text())
    assert len(blocks) == page.read_text().count("```python"), f"a code block of {page.name} is indented"
    for code, text in blocks:
        with redirect_stdout(StringIO()) as out:
            exec(compile(code, str(page), "exec"), namespace)
        printed = out.getvalue().splitlines()
        said = text.splitlines() or re.findall(r"^print\(.*\)  # (.*)$", code, re.MULTILINE)
        same = len(said) == len(printed) and all(map(_says, said, printed))
        assert same, f"{page.name} says\n{said}\nbut its code prints\n{printed}"
    return namespace


def _says(said: str, printed: str) -> bool:
    return said.startswith(printed) and said[len(printed) :][:1] in ("", " ", ",")


def broken_links(page: Path) -> list[str]:
    """Returns the relative links of a page to files or headings that do not exist."""
    links = re.findall(r"\]\(([^)\s]+)", _FENCED.sub("", _markdown(page)))
    return [link for link in links if "://" not in link and not _leads_somewhere(page, link)]


def _markdown(page: Path) -> str:
    """Returns the text of a page, or of a notebook's Markdown cells."""
    if page.suffix != ".ipynb":
        return page.read_text()
    cells = json.loads(page.read_text())["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def _leads_somewhere(page: Path, link: str) -> bool:
    name, _, heading = link.partition("#")
    target = page.parent / name if name else page
    return target.exists() and (not heading or heading in _headings(target))


def _headings(page: Path) -> list[str]:
    titles = re.findall(r"^#+ (.*)$", _FENCED.sub("", _markdown(page)), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
