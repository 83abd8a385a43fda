"""What the site has besides docs/: pages from elsewhere in the repository, public names, typeset formulas."""

import os
import re
from pathlib import Path
from urllib.parse import quote

import formulas
import notebook_pages
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# Where a file that does not lie in docs/ stands on the site.
ELSEWHERE = {
    ROOT / "README.md": "readme.md",
    ROOT / "experiments/README.md": "experiments.md",
    ROOT / "benchmarks/README.md": "benchmarks.md",
    ROOT / "CONTRIBUTING.md": "contributing.md",
    ROOT / "CHANGELOG.md": "changelog.md",
    **{path: f"notebooks/{path.stem}.md" for path in sorted(ROOT.glob("notebooks/*.ipynb"))},
}
SOURCES = {uri: path for path, uri in ELSEWHERE.items()}

_FENCED = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*)\]\(([^)\s]+)\)")
_NAME = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, uri in ELSEWHERE.items():
        text = source.read_text()
        if source.suffix == ".ipynb":
            text, pictures = notebook_pages.convert(source)
            for name, picture in pictures.items():
                files.append(File.generated(config, f"notebooks/{name}", content=picture))
        files.append(File.generated(config, uri, content=text))
        for mark, _, link in _LINK.findall(text):
            picture = source.parent / link
            if mark and picture.is_file() and not picture.resolve().is_relative_to(DOCS):
                files.append(File.generated(config, _place(picture), abs_src_path=str(picture.resolve())))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    del config, files
    uri = page.file.src_uri
    parts = _FENCED.split(markdown)
    parts[::2] = [_LINK.sub(lambda link: _on_the_site(link, uri), part) for part in parts[::2]]
    markdown = "".join(parts)
    if uri != "api.md":
        return markdown
    names = _NAME.findall(markdown)
    table = _NAME.sub(r"| [`\1`](#layca_optax.\1) |", markdown)
    return "\n\n".join([table, *(f"::: layca_optax.{name}" for name in names)])


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    del page, config, files
    return formulas.typeset(html)


def _on_the_site(link: re.Match, uri: str) -> str:
    """The link as it must be on the page `uri`; its text alone if it leads to a file that the site lacks."""
    mark, text, target = link.groups()
    text = _LINK.sub(lambda inner: _on_the_site(inner, uri), text)
    if target.startswith("#") or ":" in target:
        return f"{mark}[{text}]({target})"
    name, hash_, heading = target.partition("#")
    path = SOURCES.get(uri, DOCS / uri).parent / name
    if (notebook := SOURCES.get(uri)) is not None and notebook.suffix == ".ipynb" and not path.exists():
        place = f"notebooks/{name}"  # a picture that the notebook drew
    else:
        place = _place(path)
    if place is None:
        return text
    return f"{mark}[{text}]({quote(os.path.relpath(place, Path(uri).parent))}{hash_}{heading})"


def _place(path: Path) -> str | None:
    """Where a file of the repository stands on the site."""
    path = path.resolve()
    if path in ELSEWHERE:
        return ELSEWHERE[path]
    if path.is_relative_to(DOCS):
        return str(path.relative_to(DOCS))
    return f"images/{path.relative_to(ROOT)}" if path.suffix in (".png", ".svg") else None
