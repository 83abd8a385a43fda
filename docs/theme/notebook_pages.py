"""Notebooks, as they were committed, as Markdown: they are not run, and look like all other pages."""

import base64
import json
import re
from pathlib import Path

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def convert(notebook: Path) -> tuple[str, dict[str, bytes]]:
    """The page, and its pictures by name."""
    pictures: dict[str, bytes] = {}
    parts = []
    for cell in json.loads(notebook.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code" and source.strip():
            parts.append(_fenced("python", source))
            printed = ""
            for output in cell["outputs"]:
                png = output.get("data", {}).get("image/png")
                if png is None:
                    printed += _text(output)
                    continue
                name = f"{notebook.stem}-{len(pictures) + 1}.png"
                pictures[name] = base64.b64decode("".join(png))
                parts += [_fenced("text", printed)] * bool(printed.strip()) + [f"![Output]({name})"]
                printed = ""
            parts += [_fenced("text", printed)] * bool(printed.strip())
    return "\n\n".join(parts) + "\n", pictures


def _text(output: dict) -> str:
    text = output.get("text") or output.get("data", {}).get("text/plain") or output.get("traceback", [])
    text = _COLOURS.sub("", "".join(text))
    return text if text.endswith("\n") or not text else text + "\n"


def _fenced(language: str, code: str) -> str:
    return f"```{language}\n{code.rstrip()}\n```"
