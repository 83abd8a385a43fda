"""When a run ends before its last epoch."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class StopRule(NamedTuple):
    """The rules by which the authors ended runs, applied to training loss and accuracy after every epoch.

    Attributes:
      stuck_accuracy: a run whose training accuracy is at most this after `stuck_after` epochs does not learn.
      stuck_after: see `stuck_accuracy`.
      loss: a run with at most this training loss has finished.
      unchanged: a run whose training loss was the same for so many epochs is dead.
    """

    stuck_accuracy: float
    stuck_after: int
    loss: float
    unchanged: int = 3


# Epochs that a run may have a loss that is NaN or infinite: some recover from one.
NOT_FINITE = 3


def stop_reason(rule: StopRule | None, records: Sequence[Mapping[str, Any]]) -> str | None:
    """Why a run with these records, one an epoch, should end now; `None` if it should go on."""
    if not records:
        return None
    losses = [record["train_loss"] for record in records]
    if len(losses) >= NOT_FINITE and losses[-NOT_FINITE:] == [None] * NOT_FINITE:
        return f"the training loss was not finite for {NOT_FINITE} epochs"
    loss, accuracy = losses[-1], records[-1]["train_accuracy"]
    if rule is None or loss is None:
        return None
    if loss <= rule.loss:
        return f"the training loss is at most {rule.loss:g}"
    if len(losses) > rule.unchanged and len(set(losses[-rule.unchanged - 1 :])) == 1:
        return f"the training loss has not changed for {rule.unchanged} epochs"
    if len(losses) > rule.stuck_after and accuracy <= rule.stuck_accuracy:
        return f"training accuracy is at most {rule.stuck_accuracy:g} after epoch {rule.stuck_after}"
    return None
