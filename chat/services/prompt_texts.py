"""Texts and tokens of the chat model, as the service itself makes them. Stores nothing."""

from chat.access.callers import Caller
from chat.enums import Strategy
from chat.error_translation import translated
from chat.errors import BodyTooLarge, ContextOverflow, InvalidRequest
from chat.models import Role
from chat.prompting.builder import PromptBuilder
from chat.prompting.message_groups import DialogueMessage
from chat.schemas.requests import ChatRequest
from chat.services.validation import validate_request
from inference.config.tokenizer import get_tokenizer

# A megabyte of English has fewer; a hostile one has one for each byte.
MAX_TOKENS = 262_144


def tokens_of(text: str, *, special: bool, with_bos: bool) -> list[int]:
    """Encode a text; ``special``: names of control tokens stand for them. Raises BodyTooLarge."""
    with translated():
        tokenizer = get_tokenizer()
        bos = [] if tokenizer.vocabulary.bos is None else [tokenizer.vocabulary.bos]
        ids = tokenizer.encode(text, special=special, limit=MAX_TOKENS)
    if len(ids) > MAX_TOKENS:
        raise BodyTooLarge(f"content has more than {MAX_TOKENS:,} tokens", field="content")
    return (bos if with_bos else []) + ids


def spelled(tokens: list[int]) -> list[bytes]:
    """Return the bytes of tokens, of control tokens their names. Raises InvalidRequest for unknown ones."""
    with translated():
        tokenizer = get_tokenizer()
        n_tokens = tokenizer.vocabulary.n_tokens
        if any(token >= n_tokens for token in tokens):
            raise InvalidRequest(f"tokens names a token outside of the vocabulary of {n_tokens}", field="tokens")
        return [tokenizer.spelled(token) for token in tokens]


def prompt_text(request: ChatRequest, *, caller: Caller) -> str:
    """Return the prompt of a dialogue that brings its whole history. Raises ContextOverflow."""
    return b"".join(spelled(_prompt_ids(request, caller))).decode("utf-8", "replace")


def count_prompt_tokens(request: ChatRequest, *, caller: Caller) -> int:
    """Count the prompt of a dialogue that brings its whole history; beyond the context at least so many tokens."""
    try:
        return len(_prompt_ids(request, caller))
    except ContextOverflow as overflow:
        return int(overflow.extra["prompt_tokens"])


def _prompt_ids(request: ChatRequest, caller: Caller) -> list[int]:
    with translated():
        validated = validate_request(request, caller=caller, tokenizer=get_tokenizer())
        builder = PromptBuilder(
            system_prompt=validated.system_prompt,
            max_tokens=1,
            strategy=Strategy.ERROR,
            prefill=request.prefill,
            tools=request.tool_use.offered if request.tool_use else (),
            effort=request.reasoning_effort,
        )
        prompt = builder.build([*validated.history, DialogueMessage(Role.USER, validated.question)])
        return list(prompt.ids)
