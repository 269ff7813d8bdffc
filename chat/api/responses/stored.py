"""A stored response, read from its row."""

from chat.schemas.openai.rendering import token_logprob
from chat.schemas.responses.answers import ResponseAnswer
from chat.schemas.responses.output import OutputSoFar
from chat.schemas.responses.rendering import current_response
from chat.streaming.events import WireLine, entry_line
from inference.config.tokenizer import get_tokenizer
from inference.models import Generation
from inference.token_stream.entries import StatusEntry
from inference.token_stream.reader import replay


def stored_response(generation: Generation) -> ResponseAnswer:
    """Return a response; one that has ended with the items that its stream had."""
    output = OutputSoFar()
    if generation.is_ended:
        for entry in replay(generation, 0):
            if not isinstance(entry, StatusEntry):
                push_line(output, entry_line(entry))
    return current_response(generation, output)


def push_line(output: OutputSoFar, line: WireLine) -> None:
    """Add the token of a line."""
    logprob = token_logprob(line["logprobs"], get_tokenizer()) if "logprobs" in line else None
    output.push(line.get("thought", ""), line["token"], logprob)
