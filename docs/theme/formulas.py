"""Formulas: typeset as MathML when the site is built, so that they need neither JavaScript nor a network."""

import html
import re

from latex2mathml.converter import convert

# What the extension pymdownx.arithmatex makes of $...$ and $$...$$.
_FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<latex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)
# The space behind a function's name that LaTeX has and the converter leaves out, unless a bracket follows.
_FUNCTION = re.compile(r"<mi>(?:arc)?(?:cos|sin|tan)</mi>(?!<mo[^>]*>&#x00028;)")


def typeset(page: str) -> str:
    """The page's HTML with MathML in place of LaTeX.

    Raises:
      ValueError: a command of LaTeX that is not known, which would be shown as it is.
    """
    return _FORMULA.sub(_typeset, page)


def _typeset(found: re.Match) -> str:
    latex, is_block = html.unescape(found["latex"]).strip(), found["tag"] == "div"
    mathml = convert(latex, display="block" if is_block else "inline")
    mathml = _FUNCTION.sub(r'\g<0><mspace width="0.17em"/>', mathml)
    if "\\" in html.unescape(mathml):
        raise ValueError(f"cannot typeset {latex!r}: {mathml}")
    return f'<div class="formula">{mathml}</div>' if is_block else mathml
