"""A stored response, read from its row."""

from collections.abc import Iterable

from chat.schemas.openai.rendering import token_logprob
from chat.schemas.responses.answers import ResponseAnswer
from chat.schemas.responses.output import GrowingOutput
from chat.schemas.responses.rendering import current_response, finish, may_call
from chat.streaming.events import WireLine, entry_line
from inference.config.tokenizer import get_tokenizer
from inference.models import Generation
from inference.token_stream.entries import StatusEntry
from inference.token_stream.reader import replay


def stored_response(generation: Generation) -> ResponseAnswer:
    """Return a response; one that has ended with the items that its stream had."""
    entries = replay(generation, 0) if generation.is_ended else ()
    lines = [entry_line(entry) for entry in entries if not isinstance(entry, StatusEntry)]
    return current_response(generation, finished_output(generation, lines))


def finished_output(generation: Generation, lines: Iterable[WireLine]) -> GrowingOutput:
    """Return the output that the lines of all tokens make; of a response that has not ended, that of no token."""
    output = GrowingOutput(may_call=may_call(generation))
    for line in lines:
        logprob = token_logprob(line["logprobs"], get_tokenizer()) if "logprobs" in line else None
        list(output.push(line.get("thought", ""), line["token"], logprob))
    if generation.is_ended:
        list(finish(output, generation))
    return output
