"""Step 1 of a turn: check the rules between the fields of a request, and split it into question and history.

Raw prompts are counted here, too: both kinds are refused before anything is stored.
"""

from dataclasses import dataclass, replace
from functools import partial

from django.conf import settings

from chat.access.callers import Caller
from chat.enums import ChatRole
from chat.errors import ContextOverflow, InvalidRequest
from chat.models import Role
from chat.prompting.message_groups import DialogueMessage
from chat.prompting.token_budget import EXACT_CHARS
from chat.schemas.requests import ChatRequest, CompletionRequest, RunOptions
from inference.config.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class ValidatedRequest:
    """A caller's request whose fields agree with each other.

    ``history`` holds the messages sent before the question, new ones where the request appends; an empty
    ``system_prompt`` stands for the default, an empty ``question`` for the one that ``request.replaces`` names.
    """

    caller: Caller
    request: ChatRequest
    question: str
    history: tuple[DialogueMessage, ...] = ()
    system_prompt: str = ""


def validate_request(request: ChatRequest, *, caller: Caller, tokenizer: Tokenizer) -> ValidatedRequest:
    """Raises InvalidRequest with the name of the field."""
    if request.replaces and not request.conversation_id:
        raise InvalidRequest("replaces needs the conversation_id of its message", field="replaces")
    system_prompt, history, question = "", tuple[DialogueMessage, ...](), ""
    is_repeated = request.replaces and request.message is None and not request.messages
    if request.conversation_id and not (is_repeated or request.appends):
        question = request.only_message
    elif request.appends or not request.conversation_id:
        system_prompt, history, question = _split_history(request)
    if not is_repeated and not question.strip():
        raise InvalidRequest("the new message is empty", field=request.question_field)
    request = request.within(tokenizer.context_size)
    is_kept = not caller.is_service or caller.service_id in settings.STORING_SERVICES
    # Programs that call for an answer alone would leave a conversation each time; one that they name goes on.
    if request.has_store_default and not (is_kept or request.conversation_id):
        request = replace(request, store=False)
    check_options(request, tokenizer)
    return ValidatedRequest(
        caller=caller, request=request, question=question, history=history, system_prompt=system_prompt
    )


def check_options(options: RunOptions, tokenizer: Tokenizer) -> None:
    """Check what depends on the model's vocabulary and context window. Raises InvalidRequest."""
    if options.max_tokens > tokenizer.context_size:
        raise InvalidRequest(
            f"max_tokens is {options.max_tokens}, but the context has {tokenizer.context_size} tokens",
            field="max_tokens",
        )
    n_tokens = tokenizer.vocabulary.n_tokens
    unknown = next((token for token in options.logit_bias if not 0 <= token < n_tokens), None)
    if unknown is not None:
        raise InvalidRequest(
            f"logit_bias names token {unknown}, but the vocabulary has {n_tokens} tokens", field="logit_bias"
        )


def raw_prompt_ids(prompt: str | tuple[int, ...], request: CompletionRequest, tokenizer: Tokenizer) -> list[int]:
    """Return the tokens of a raw prompt: a text begins with one BOS, token ids are taken as they are.

    Raises ContextOverflow, for a long text before it is encoded to its end.
    """
    limit, is_exact = tokenizer.context_size - 1, True
    overflow = partial(ContextOverflow, context_size=tokenizer.context_size, field="prompt")
    if isinstance(prompt, str):
        if (n_least := tokenizer.least_tokens(prompt)) > limit:
            raise overflow(prompt_tokens=n_least, is_exact=False)
        is_exact = len(prompt) <= EXACT_CHARS
        ids = tokenizer.encode(prompt, special=request.special, limit=None if is_exact else limit)
        bos = tokenizer.vocabulary.bos
        if bos is not None and ids[:1] != [bos]:
            ids = [bos, *ids]
    else:
        ids = list(prompt)
        n_tokens = tokenizer.vocabulary.n_tokens
        if any(not 0 <= token < n_tokens for token in ids):
            raise InvalidRequest(f"prompt names a token outside of the vocabulary of {n_tokens}", field="prompt")
    if not ids:
        raise InvalidRequest("the prompt has no tokens", field="prompt")
    if len(ids) > limit:
        raise overflow(prompt_tokens=len(ids), is_exact=is_exact)
    return ids


def _split_history(request: ChatRequest) -> tuple[str, tuple[DialogueMessage, ...], str]:
    """System prompt, history and question of a request that brings its whole history."""
    if request.message is not None:
        raise InvalidRequest("message needs a conversation_id; without one, send messages", field="message")
    if not request.messages:
        raise InvalidRequest("messages is empty", field="messages")
    first, *rest = request.messages
    dialogue = rest if first.role is ChatRole.SYSTEM else [first, *rest]
    if any(message.role is ChatRole.SYSTEM for message in dialogue):
        raise InvalidRequest("a system message is allowed as the first message only", field="messages")
    if not dialogue or dialogue[-1].role is not ChatRole.USER:
        raise InvalidRequest("the last message must be a user message", field="messages")
    # White space alone gives the model no instruction: it counts as no system message.
    system_prompt = first.content if first.role is ChatRole.SYSTEM and first.content.strip() else ""
    roles = {ChatRole.USER: Role.USER, ChatRole.ASSISTANT: Role.ASSISTANT}
    history = tuple(
        DialogueMessage(roles[message.role], message.content, thought=message.thought) for message in dialogue[:-1]
    )
    return system_prompt, history, dialogue[-1].content
