"""The documentation's site: complete, closed in itself, and the parts that make it."""

import base64
import inspect
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import docstrings
import formulas
import notebook_pages
import pages
import pytest

import layca_optax

_CSS_ADDRESS = re.compile(r"""(?:url\(|@import)\s*["']?([^"')\s;]+)""")


class Page(HTMLParser):
    """The anchors of a page, where its links lead, and what a browser loads with it."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links, self.loads = {""}, set(), set(_CSS_ADDRESS.findall(text))
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors |= {attrs[key] for key in ("id", "name") if attrs.get(key)}
        if tag == "a" and "href" in attrs:
            self.links.add(attrs["href"])
        elif tag == "link":
            self.loads.add(attrs["href"])
        self.loads |= {attrs[key] for key in ("src", "srcset", "poster") if attrs.get(key)}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Built as its first lines say, where no proxy leads out."""
    folder = tmp_path_factory.mktemp("site")
    offline = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https", "all")}
    run = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=pages.ROOT,
        env=os.environ | offline | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


def test_every_public_name_has_its_place(site):
    page = Page((site / "api.html").read_text())
    assert {f"layca_optax.{name}" for name in layca_optax.__all__} <= page.anchors


def test_every_page_and_notebook_is_there_and_in_the_menu(site):
    sources = {path: f"{path.stem}.html" for path in (pages.ROOT / "docs").rglob("*.md")}
    sources |= {path: f"notebooks/{path.stem}.html" for path in pages.ROOT.glob("notebooks/*.ipynb")}
    assert {name for name in sources.values() if not (site / name).exists()} == set()
    menu = Page((site / "index.html").read_text()).links
    assert {str(path.relative_to(site)) for path in site.rglob("*.html")} - menu == {"404.html"}


def test_nothing_is_loaded_from_elsewhere(site):
    loaded = {address for path in site.rglob("*.html") for address in Page(path.read_text()).loads}
    loaded |= {address for path in site.rglob("*.css") for address in _CSS_ADDRESS.findall(path.read_text())}
    assert any(address.endswith(".css") for address in loaded)
    assert [a for a in loaded if a.startswith("//") or urlsplit(a).scheme not in ("", "data")] == []


def test_links_lead_to_pages_and_headings(site):
    found = {path: Page(path.read_text()) for path in site.rglob("*.html") if path.name != "404.html"}
    dead = []
    for path, page in found.items():
        for link in page.links | page.loads:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = found[target].anchors if target in found else {""}
            if not target.exists() or unquote(parts.fragment) not in anchors:
                dead.append((path.name, link))
    assert dead == []


def test_formulas_are_typeset(site):
    source = re.sub(
        r"^```.*?^```$", "", (pages.ROOT / "docs/methods.md").read_text(), flags=re.DOTALL | re.MULTILINE
    )
    written = re.findall(r"\$\$.+?\$\$|\$[^$]+\$", source, re.DOTALL)
    assert (site / "methods.html").read_text().count("<math") == len(written) > 0
    for path in site.rglob("*.html"):
        assert "arithmatex" not in path.read_text()


@pytest.mark.parametrize("name", layca_optax.__all__)
def test_nothing_but_markdown_is_left_of_a_docstring(name):
    text = inspect.getdoc(getattr(layca_optax, name))
    result = docstrings.markdown(text)
    assert not re.search(r":math:|\.\. math|`_|^Example:|^References:", result, re.MULTILINE)
    blocks = re.findall(r"^\$\$\n(.*?)\n\$\$$", result, re.DOTALL | re.MULTILINE)
    assert len(blocks) == text.count(".. math::")
    for latex in blocks + re.findall(r"\$([^$\n]+)\$", result):
        formulas.typeset(f'<div class="arithmatex">\\[{latex}\\]</div>')


def test_public_names_are_linked():
    text = docstrings.linked("as in `layca`, `other` and `layca(lr)`", {"layca"}, "layca_optax")
    assert text == "as in [`layca`][layca_optax.layca], `other` and `layca(lr)`"


def test_a_formula_becomes_mathml():
    page = formulas.typeset(r'<p>The <span class="arithmatex">\(\cos \rho &lt; 1\)</span>.</p>')
    for part in ("<math", "<mi>cos</mi><mspace", "<mi>&#x003C1;</mi>", "<mo>&#x0003C;</mo>"):
        assert part in page
    with pytest.raises(ValueError, match="cannot typeset"):
        formulas.typeset(r'<span class="arithmatex">\(\nosuchcommand x\)</span>')


def test_a_notebook_becomes_a_page(tmp_path):
    png = b"\x89PNG"
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": ["one\n", "two\n"]},
        {"output_type": "execute_result", "data": {"text/plain": ["3"]}},
        {
            "output_type": "display_data",
            "data": {"image/png": base64.b64encode(png).decode(), "text/plain": "Figure"},
        },
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "Text"]},
        {"cell_type": "code", "source": ["print('one')\n", "plot()"], "outputs": outputs},
    ]
    (tmp_path / "quick.ipynb").write_text(json.dumps({"cells": cells}))
    page, pictures = notebook_pages.convert(tmp_path / "quick.ipynb")
    assert page == (
        "# Title\nText\n\n```python\nprint('one')\nplot()\n```\n\n```text\none\ntwo\n3\n```\n\n"
        "![Output](quick-1.png)\n"
    )
    assert pictures == {"quick-1.png": png}
