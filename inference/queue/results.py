"""What an ended generation leaves in its row, computed from the tokens it gave out. Pure functions."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any

from django.utils import timezone

from inference.engine.backends.vocabulary import Vocabulary
from inference.engine.params import SequenceParams
from inference.engine.text.citation_filter import citation_labels
from inference.engine.text.detokenizer import Detokenizer
from inference.enums import FinishReason, Status
from inference.token_ids import pack
from inference.token_stream.entries import EndEntry, TokenEntry

log = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class FinalText:
    """The last word on a text: what was held back until the end, and how many tokens lie wholly within the text."""

    text: str
    n_kept: int


def final_text(vocabulary: Vocabulary, tokens: Sequence[TokenEntry], params: SequenceParams) -> FinalText:
    """What a runner would have said had the answer ended here: its text is a pure function of the tokens."""
    text = Detokenizer.of(params)
    for token in tokens:
        text.push(vocabulary.piece(token.token))
    return FinalText(storable(text.flush()), text.n_kept)


def output_ids(
    vocabulary: Vocabulary, tokens: Sequence[TokenEntry], last: FinalText, params: SequenceParams
) -> list[int]:
    """Token ids of what the model said, however a stop string cut its tokens.

    Their text is the answer's text, but for labels that were taken out of that: the next prompt goes on from cells
    that hold what was sampled, and a label without a meaning is not worth computing those again.
    """
    kept = [token.token for token in tokens[: last.n_kept]]
    if last.n_kept == len(tokens):
        return kept
    text = "".join(token.text for token in tokens) + last.text
    if params.highest_label is not None:
        text = _said(vocabulary, tokens, params)
    kept_text = storable(vocabulary.text(kept))
    if params.trim_start:
        kept_text = kept_text.lstrip()
    if not text.startswith(kept_text):
        return kept
    return kept + vocabulary.encode(text[len(kept_text) :], special=False)


def _said(vocabulary: Vocabulary, tokens: Sequence[TokenEntry], params: SequenceParams) -> str:
    """The text with all its labels."""
    text = Detokenizer(params.stop, trim_start=params.trim_start)
    return storable("".join(text.push(vocabulary.piece(token.token)) for token in tokens) + text.flush())


def storable(text: str) -> str:
    """PostgreSQL stores no NUL; a model may say one."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def row_columns(
    ending: Ending,
    tokens: Sequence[TokenEntry],
    params: SequenceParams,
    *,
    vocabulary: Vocabulary | None,
    last: FinalText | None = None,
) -> dict[str, Any]:
    """Columns of the row's end. ``last`` is what the runner said; without it, it is worked out from the tokens."""
    last, output = _last_and_output(vocabulary, tokens, params, last)
    text = "".join(token.text for token in tokens) + last.text
    return {
        "status": ending.status,
        "finish_reason": ending.finish_reason or "",
        "error_code": ending.error_code,
        "error_message": ending.error_message,
        "text": text,
        "labels": sorted(citation_labels(text)) if params.highest_label is not None else [],
        "text_ends": pack(list(accumulate(len(token.text) for token in tokens))),
        "output": pack(output),
        "n_completion_tokens": len(tokens),
        "devices": device_runs(tokens),
        "prompt": b"",
        "finished_at": timezone.now(),
    }


def _last_and_output(
    vocabulary: Vocabulary | None, tokens: Sequence[TokenEntry], params: SequenceParams, last: FinalText | None
) -> tuple[FinalText, list[int]]:
    """Without a vocabulary (the model file is gone, or is another one now) what was held back is lost and the output
    is all tokens."""
    if vocabulary is not None:
        try:
            known = last or final_text(vocabulary, tokens, params)
            return known, output_ids(vocabulary, tokens, known, params)
        except ValueError as error:
            log.warning("an answer ends with tokens that are not of this model: %s", error)
    return last or FinalText("", len(tokens)), [token.token for token in tokens]


def end_entry(columns: dict[str, Any], tokens: Sequence[TokenEntry]) -> EndEntry:
    """The log's last entry, with the text that no token of it carries."""
    n_released = sum(len(token.text) for token in tokens)
    return EndEntry(index=len(tokens), status=columns["status"], text=columns["text"][n_released:])


def device_runs(tokens: Sequence[TokenEntry]) -> list[dict[str, Any]]:
    """Which device gave how many tokens, in order."""
    runs = groupby(tokens, key=lambda token: token.device)
    return [{"device": device, "tokens": sum(1 for _ in run)} for device, run in runs]
