"""Records of metrics, one an epoch, as `metrics.jsonl` holds them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any


def finite(value: Any) -> float | None:
    """JSON has no NaN and no infinity; what is not finite becomes null there."""
    return float(value) if math.isfinite(value) else None


def final_accuracy(records: Sequence[Mapping[str, Any]]) -> float | None:
    """The last test accuracy or, where images were held out, that of the epoch best on those."""
    looked = [record for record in records if record["test_accuracy"] is not None]
    if not looked:
        return None
    if "validation_accuracy" in looked[-1]:
        return max(looked, key=lambda record: record["validation_accuracy"] or 0.0)["test_accuracy"]
    return looked[-1]["test_accuracy"]
