"""Draws who imports whom, as `docs/images/house.svg` and `library.svg`: `python docs/house.py`.

The plans say where names stand. An arrow is left out if others lead from one of its ends to the other.
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
HOUSE = """
 experiments     benchmarks
            train
           training
 layca_optax   models   data
"""
LIBRARY = """
                       _rebase   _skip_nonfinite   _scalars          _alpha      _sgd_amom      plot
                               _track                     _describe                           _depth
                _layca                  _rotation          _descent                               _walk
    _turn        _state   _small_leaves      _norms                          _rates             _through
                        _vectors                   _floats                    _rules            _indices
                        _xla_cpu                                              _paths       _known    _origin
"""
HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="-8 28 {0} {1}" width="{0}" height="{1}">
<marker id="tip" viewBox="0 0 9 8" refX="9" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0 0 9 4 0 8z" fill="#778"/></marker>\n"""
ARROW = '<path id="{}-{}" d="M{} {}C{} {} {} {} {} {}" fill="none" stroke="#778" marker-end="url(#tip)"/>'
BOX = """<rect x="{}" y="{}" width="{}" height="24" rx="5" fill="#eef2fc" stroke="#778"/>
<text x="{}" y="{}" text-anchor="middle" style="font:13px monospace">{}</text>\n"""


def imports(path: Path, package: str) -> set[str]:
    """Returns the folders, or the modules of a package, that a file or the files of a folder import."""
    files = path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.removeprefix(package).split(".")[0] for name in names} - {path.stem}


def drawn(plan: str, folder: Path, package: str = "") -> str:
    """Draws the imports among the names of a plan as SVG; a `KeyError` names an import that points up."""
    words = [(word, 60 * i) for i, row in enumerate(plan.splitlines()) for word in re.finditer(r"\S+", row)]
    at = {word[0]: (4 * (word.start() + word.end()), y) for word, y in words}
    svg = HEAD.format(8 * max(map(len, plan.splitlines())) + 16, words[-1][1])
    arrows, below = [], {}
    for a in reversed(at):
        found = imports(folder / a, package) & at.keys()
        below[a] = found.union(*(below[b] for b in found))
        arrows += [(at[a], at[b], a, b) for b in found.difference(*(below[c] for c in found))]
    arrows.sort()
    for (x, y), (u, v), a, b in arrows:
        # Arrows that share an end stand side by side there.
        ends, starts = [to for _, to, c, _ in arrows if c == a], [fro for fro, _, _, d in arrows if d == b]
        x0 = x + 8 * ends.index((u, v)) - 4 * (len(ends) - 1)
        x1 = u + 8 * starts.index((x, y)) - 4 * (len(starts) - 1)
        svg += ARROW.format(a, b, x0, y + 12, x0, (y + v) // 2, x1, (y + v) // 2, x1, v - 12) + "\n"
    for name, (x, y) in at.items():
        svg += BOX.format(x - 4 * len(name) - 6, y - 12, 8 * len(name) + 12, x, y + 4, name)
    return svg + "</svg>\n"


PICTURES = {"house": (HOUSE, ROOT), "library": (LIBRARY, ROOT / "layca_optax", "layca_optax.")}
if __name__ == "__main__":
    for name, picture in PICTURES.items():
        (ROOT / "docs" / "images" / f"{name}.svg").write_text(drawn(*picture))
