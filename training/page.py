"""The page of a run: its curves in one file that opens in any browser, also without a network."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from training.config import Config, flag
from training.records import final_accuracy
from training.report import layer_colors, show
from training.tasks import TASKS
from training.writing import whole

_TEMPLATE = Path(__file__).with_suffix(".html")


def write_page(config: Config, records: Sequence[Mapping[str, Any]], reason: str | None, path: Path) -> None:
    """Writes a run's curves of loss, accuracy and rotation.

    Args:
      config: what the run was.
      records: one an epoch, at least one; each one's `rotation` lists layers in forward order.
      reason: why it ended before its last epoch, `None` if it did not.
      path: an HTML file to write; it loads nothing.
    """
    drops, factor = TASKS[config.task].schedule_with(config.layca, config.epochs)
    drops = [drop for drop in drops if 0 < drop < records[-1]["epoch"]]
    rotation = records[-1]["rotation"]
    colors = dict(zip(rotation, layer_colors(len(rotation)), strict=True))
    ended = f"Ended after epoch {records[-1]['epoch']} of {config.epochs}: {reason}"
    dashed = f" Dashed: the learning rate is multiplied by {factor:g}." if drops else ""
    facts = [f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in _facts(config, records)]
    text = {
        "title": escape(config.title()),
        "facts": "".join(facts),
        "note": "" if reason is None else f'<p class="note">{escape(ended)}</p>',
        "drops": dashed,
        "colors": ", ".join(layer_colors(9)),
        "command": f"<span>{escape(command(config)).replace(' --', '</span> <span>--')}</span>",
        # As JSON the same; in HTML it can begin no tag.
        "data": json.dumps({"layers": colors, "drops": drops, "records": records}).replace("<", "\\u003c"),
        "style": _TEMPLATE.with_suffix(".css").read_text(encoding="utf-8"),
        "script": _TEMPLATE.with_suffix(".js").read_text(encoding="utf-8"),
    }
    # All in one pass: nothing that is put in is looked at again.
    page = re.sub(r"\{\{(\w+)\}\}", lambda place: text[place[1]], _TEMPLATE.read_text(encoding="utf-8"))
    with whole(path) as part:
        part.write_text(page, encoding="utf-8")


def command(config: Config) -> str:
    """The command line that asks for a run, with nothing left to defaults."""
    words = ["python", "train.py"]
    for name, value in asdict(config).items():
        if name == "layca" and not value:
            words.append("--no-layca")
        elif value is True:
            words.append(flag(name))
        elif value is not False and value is not None:
            words += [flag(name), str(value)]
    return shlex.join(words)


def _facts(config: Config, records: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    last = records[-1]
    epochs = f"{config.epochs}" if last["epoch"] == config.epochs else f"{last['epoch']} of {config.epochs}"
    facts = [
        ("test accuracy", show(final_accuracy(records))),
        ("training accuracy", show(last["train_accuracy"])),
        ("training loss", show(last["train_loss"], ".2e")),
        ("learning rate", f"{config.learning_rate:.4g}"),
        ("α", f"{config.alpha:g}"),
        ("weight decay", f"{config.weight_decay:g}"),
        ("batch size", f"{config.batch_size:,}"),
        ("epochs", epochs),
        ("seed", f"{config.seed}"),
        ("time of training", _time(sum(record["seconds"] for record in records))),
    ]
    skipped = sum(last["skipped"].values())
    return [*facts, ("steps skipped by layers", f"{skipped:,}")] if skipped else facts


def _time(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
