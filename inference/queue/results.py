"""The result columns of an ended generation, computed from its emitted tokens. Pure functions."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any

from django.utils import timezone

from inference.engine.backends.vocabulary import Vocabulary
from inference.engine.params import SequenceParams
from inference.engine.sampling.logprob_records import pack_logprobs
from inference.engine.text.citation_filter import citation_labels
from inference.engine.text.detokenizer import Detokenizer
from inference.enums import FinishReason, Status
from inference.text_forms import answer_digest, folded
from inference.token_ids import pack
from inference.token_stream.entries import EndEntry, TokenEntry

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ending:
    """Status and error that a generation ends with."""

    status: Status
    finish_reason: FinishReason | None = None
    error_code: str = ""
    error_message: str = ""


CANCELLED = Ending(Status.INTERRUPTED, FinishReason.CANCELLED)
TIMED_OUT = Ending(Status.INTERRUPTED, FinishReason.CANCELLED, "timeout", "The answer took longer than timeout_s.")


def failed(code: str, message: str) -> Ending:
    return Ending(Status.FAILED, error_code=code, error_message=message)


@dataclass(frozen=True)
class FinalText:
    """The text and the thought held back until the end, and how many tokens lie wholly within the whole text."""

    text: str
    n_kept: int
    thought: str = ""


def final_text(vocabulary: Vocabulary, tokens: Sequence[TokenEntry], params: SequenceParams) -> FinalText:
    """The final text of an answer that ends here. The text is a pure function of the tokens."""
    text = Detokenizer.of(params)
    for token in tokens:
        text.push_token(token.token, vocabulary)
    text.take_thought()
    return FinalText(storable(text.flush()), text.n_kept, storable(text.take_thought()))


def output_ids(
    vocabulary: Vocabulary, tokens: Sequence[TokenEntry], last: FinalText, params: SequenceParams
) -> list[int]:
    """The sampled token ids of the answer, cut where a stop sequence cut its text.

    Their text is the answer's text, except for removed citation labels: the next prompt reuses KV cells that hold
    the sampled tokens, and a removed label is no reason to compute them again. With a thought they are those of
    thought and answer; the next prompt compares their text with what its template shows.
    """
    whole = [token.token for token in tokens[: last.n_kept]]
    if last.n_kept == len(tokens) or params.thought is not None:
        return whole
    text = "".join(token.text for token in tokens) + last.text
    if params.highest_label is not None:
        # The text as it was before unknown labels were removed.
        with_labels = Detokenizer(params.stop, trim_start=params.trim_start)
        released = [with_labels.push(vocabulary.piece(token.token)) for token in tokens]
        text = storable("".join(released) + with_labels.flush())
    whole_text = storable(vocabulary.text(whole))
    if params.trim_start:
        whole_text = whole_text.lstrip()
    if not text.startswith(whole_text):
        return whole
    return whole + vocabulary.encode(text[len(whole_text) :], special=False)


def storable(text: str) -> str:
    """Replace NUL, which a model may emit and PostgreSQL does not store."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def row_columns(
    ending: Ending,
    tokens: Sequence[TokenEntry],
    params: SequenceParams,
    *,
    vocabulary: Vocabulary | None,
    last: FinalText | None = None,
) -> dict[str, Any]:
    """The result columns. ``last`` comes from the runner; without it, it is computed from the tokens."""
    last, output = _decode_output(vocabulary, tokens, params, last)
    text = "".join(token.text for token in tokens) + last.text
    thought = "".join(token.thought for token in tokens) + last.thought
    return {
        "status": ending.status,
        "finish_reason": ending.finish_reason or "",
        "error_code": ending.error_code,
        "error_message": ending.error_message,
        "text": text,
        "text_folded": folded(text),
        "text_digest": answer_digest(text),
        "labels": sorted(citation_labels(text)) if params.highest_label is not None else [],
        "text_ends": pack(list(accumulate(len(token.text) for token in tokens))),
        "thought": thought,
        "thought_ends": pack(list(accumulate(len(token.thought) for token in tokens))) if thought else b"",
        "logprobs": pack_logprobs([token.logprobs for token in tokens]) if params.n_logprobs else b"",
        "output": pack(output),
        "n_completion_tokens": len(tokens),
        "devices": device_runs(tokens),
        "prompt": b"",
        "finished_at": timezone.now(),
    }


def _decode_output(
    vocabulary: Vocabulary | None, tokens: Sequence[TokenEntry], params: SequenceParams, last: FinalText | None
) -> tuple[FinalText, list[int]]:
    """Return the final text and the output ids. Without a vocabulary (the model file is missing or was replaced) the
    held back text is lost and the output is all tokens."""
    if vocabulary is not None:
        try:
            final = last or final_text(vocabulary, tokens, params)
            return final, output_ids(vocabulary, tokens, final, params)
        except ValueError as error:
            log.warning("emitted tokens are not in this model's vocabulary error=%s", error)
    return last or FinalText("", len(tokens)), [token.token for token in tokens]


def end_entry(columns: dict[str, Any], tokens: Sequence[TokenEntry]) -> EndEntry:
    """Return the log's End entry, with the text that no token entry carries."""
    n_released = sum(len(token.text) for token in tokens)
    n_thought = sum(len(token.thought) for token in tokens)
    return EndEntry(
        index=len(tokens),
        status=columns["status"],
        text=columns["text"][n_released:],
        thought=columns["thought"][n_thought:],
    )


def device_runs(tokens: Sequence[TokenEntry]) -> list[dict[str, Any]]:
    """Tokens per device, in order of computation."""
    runs = groupby(tokens, key=lambda token: token.device)
    return [{"device": device, "tokens": sum(1 for _ in run)} for device, run in runs]
