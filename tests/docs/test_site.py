"""The documentation's site has every page, needs no other site, and is readable."""

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pages
import pytest

import layca_optax

_CSS_ADDRESS = re.compile(r"""(?:url\(|@import)\s*["']?([^"')\s;]+)""")


class Page(HTMLParser):
    """Collects the anchors of a page, its links, and what a browser loads with it."""

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


def build(source, folder):
    """Builds as the first line of `docs/conf.py` says; proxies that do not exist keep it off the network."""
    offline = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https", "all")}
    return subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "-c", source / "docs", source, folder],
        env=os.environ | offline,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    run = build(pages.ROOT, folder)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


def test_every_public_name_has_its_place(site):
    page = Page((site / "docs" / "api.html").read_text())
    assert {f"layca_optax.{name}" for name in layca_optax.__all__} <= page.anchors
    # A docstring that mentions another name links to it.
    assert "#layca_optax.layca" in page.links


def test_every_page_and_notebook_is_there_and_in_the_menu(site):
    sources = [*(pages.ROOT / "docs").glob("*.md"), *pages.ROOT.glob("*/*.ipynb"), *pages.ROOT.glob("*.md")]
    sources += [pages.ROOT / folder / "README.md" for folder in ("experiments", "benchmarks")]
    expected = {str(path.relative_to(pages.ROOT).with_suffix(".html")) for path in sources}
    assert {name for name in expected if not (site / name).exists()} == set()
    menu = {os.path.normpath(f"docs/{link}") for link in Page((site / "docs/index.html").read_text()).links}
    assert expected - menu == {"docs/index.html"}
    assert "docs/index.html" in Page((site / "index.html").read_text()).links


def test_nothing_is_loaded_from_elsewhere(site):
    loaded = {address for path in site.rglob("*.html") for address in Page(path.read_text()).loads}
    loaded |= {address for path in site.rglob("*.css") for address in _CSS_ADDRESS.findall(path.read_text())}
    assert any(address.split("?")[0].endswith("style.css") for address in loaded)
    assert [a for a in loaded if a.startswith("//") or urlsplit(a).scheme not in ("", "data")] == []


def test_links_lead_to_pages_and_headings(site):
    found = {path: Page(path.read_text()) for path in site.rglob("*.html") if "_static" not in path.parts}
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


def test_search_finds_the_words_of_the_field(site):
    index = json.loads((site / "searchindex.js").read_text().removeprefix("Search.setIndex(")[:-1])
    # Fine-tuning is two words to the search, and all words are reduced to their stems.
    words = {"adamw", "lora", "wandb", "warmup", "fine", "tune", "haiku", "nnx", "equinox", "muon"}
    assert words <= index["terms"].keys()


def test_the_menu_tells_tutorials_from_reference(site):
    captions = re.findall(r'class="caption-text">([^<]+)<', (site / "docs" / "index.html").read_text())
    assert captions[:4] == ["Tutorials", "How to", "Explanation", "Reference"]


def test_every_notebook_can_be_downloaded_from_the_gallery(site):
    gallery = Page((site / "docs" / "tutorials.html").read_text())
    downloads = {os.path.basename(link) for link in gallery.links if "_downloads" in link}
    assert downloads == {path.name for path in pages.ROOT.glob("notebooks/*.ipynb")}


def test_programs_can_be_copied_and_diffs_and_outputs_cannot(site):
    script = (site / "_static" / "copybutton.js").read_text()
    copied = set(re.findall(r"highlight-(\w+)", re.search(r"COPYBUTTON_SELECTOR = '(.*)'", script)[1]))
    text = "".join(path.read_text() for path in site.rglob("*.html"))
    languages = set(re.findall(r'"highlight-(\w+) notranslate', text))
    assert languages - copied == {"diff", "text", "bibtex"}


def test_formulas_are_typeset(site):
    source = re.sub(
        r"^```.*?^```$", "", (pages.ROOT / "docs/methods.md").read_text(), flags=re.DOTALL | re.MULTILINE
    )
    written = re.findall(r"\$\$.+?\$\$|\$[^$]+\$", source, re.DOTALL)
    assert (site / "docs" / "methods.html").read_text().count("<math") == len(written) > 0
    assert '<mi>cos</mi>\n  <mo rspace="0.17em">' in (site / "docs" / "methods.html").read_text()


def test_nothing_but_text_is_left_of_docstrings(site):
    text = (site / "docs" / "api.html").read_text()
    assert text.count("<math") > 20
    assert not re.search(r":math:|\.\. math|`_|Example:\n|References:\n|Alias for field", text)


def test_notebooks_show_what_they_printed_and_drew(site):
    for path in pages.ROOT.glob("notebooks/*.ipynb"):
        text = (site / "notebooks" / f"{path.stem}.html").read_text()
        cells = json.loads(path.read_text())["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        drawn = sum("image/png" in output.get("data", {}) for output in outputs)
        assert text.count('<div class="cell_output') == sum(bool(cell.get("outputs")) for cell in cells)
        assert len(re.findall(r'<img[^>]*src="[^"]*_images/[0-9a-f]{64}\.png', text)) == drawn


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[there](missing.md)", "missing.md"),
        ("[there](#missing)", "missing"),
        ("![there](missing.png)", "missing.png"),
        (r"$\nosuchcommand x$", "nosuchcommand"),
    ],
)
def test_what_would_be_broken_is_refused(text, message, tmp_path):
    shutil.copytree(pages.ROOT / "docs" / "theme", tmp_path / "docs" / "theme")
    shutil.copy(pages.ROOT / "docs" / "conf.py", tmp_path / "docs")
    (tmp_path / "docs" / "index.md").write_text(f"# Title\n\n{text}\n")
    run = build(tmp_path, tmp_path / "site")
    assert run.returncode != 0
    assert message in run.stderr
