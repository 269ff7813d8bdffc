"""What an ended generation leaves in its row, computed from the tokens it gave out. Pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any

from django.utils import timezone

from inference.states import FinishReason, Status
from inference.token_ids import pack
from inference.token_log_entries import Token


@dataclass(frozen=True)
class Ending:
    """How a generation is over."""

    status: Status
    finish_reason: FinishReason | None = None
    error_code: str = ""
    error_message: str = ""


CANCELLED = Ending(Status.INTERRUPTED, FinishReason.CANCELLED)
TIMED_OUT = Ending(Status.INTERRUPTED, FinishReason.CANCELLED, "timeout", "the request's time was over")


def failed(code: str, message: str) -> Ending:
    return Ending(Status.FAILED, error_code=code, error_message=message)


def row_columns(
    ending: Ending, tokens: Sequence[Token], *, held_back: str = "", output: Sequence[int] | None = None
) -> dict[str, Any]:
    """Columns of the row's end: ``held_back`` is text released after the last token; ``output`` the token ids
    whose text is the row's text, when these are not simply all tokens."""
    text_ends = list(accumulate(len(token.text) for token in tokens))
    return {
        "status": ending.status,
        "finish_reason": ending.finish_reason or "",
        "error_code": ending.error_code,
        "error_message": ending.error_message,
        "text": "".join(token.text for token in tokens) + held_back,
        "text_ends": pack(text_ends),
        "output": pack([token.token for token in tokens] if output is None else output),
        "n_completion_tokens": len(tokens),
        "devices": device_runs(tokens),
        "prompt": b"",
        "finished_at": timezone.now(),
    }


def device_runs(tokens: Sequence[Token]) -> list[dict[str, Any]]:
    """Which device gave how many tokens, in order."""
    runs = groupby(tokens, key=lambda token: token.device)
    return [{"device": device, "tokens": sum(1 for _ in run)} for device, run in runs]
