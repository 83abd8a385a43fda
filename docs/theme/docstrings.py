"""Docstrings as optax writes them (Google's sections, reStructuredText's formulas and links) as Markdown."""

import re
import textwrap

import griffe

_BLOCK = re.compile(r"^( *)\.\. math::(.*(?:\n(?:\1 +.*| *$))*)", re.MULTILINE)
_INLINE = re.compile(r":math:`([^`]*)`")
_LINK = re.compile(r"`([^`<]+?)\s+<([^>]+)>`_")
_REFERENCES = re.compile(r"^References:\n((?:(?: .*)?(?:\n|$))+)", re.MULTILINE)
_TITLE = '<span class="doc-section-title">References:</span>'


def markdown(docstring: str) -> str:
    """The docstring as mkdocstrings reads it."""
    text = _BLOCK.sub(lambda found: f"$$\n{textwrap.dedent(found[2]).strip()}\n$$\n", docstring)
    text = _INLINE.sub(lambda found: f"${' '.join(found[1].split())}$", text)
    text = _LINK.sub(lambda found: f"[{' '.join(found[1].split())}]({found[2]})", text)
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
    return _REFERENCES.sub(lambda found: f"{_TITLE}\n\n{textwrap.dedent(found[1])}", text)


def linked(text: str, names: set[str], package: str) -> str:
    """The text with links from the public names that it mentions to their places."""
    link = lambda found: f"[{found[0]}][{package}.{found[1]}]" if found[1] in names else found[0]
    return re.sub(r"`(\w+)`", link, text)


class Docstrings(griffe.Extension):
    """Rewrites every docstring of the library before it is taken apart."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        del kwargs
        if obj.docstring is not None:
            names = {str(name) for name in obj.package.exports or ()} - {obj.name}
            obj.docstring.value = linked(markdown(obj.docstring.value), names, obj.package.name)
