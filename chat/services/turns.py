"""Chat turns: from an authorised request to a stored, queued generation. The only way in for views, consumers,
commands and tasks; what goes wrong leaves as a ChatError."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass

from chat.access.callers import Caller
from chat.error_translation import translated
from chat.errors import ChatError, ContextOverflow, ConversationBusy, NotFound
from chat.prompting.builder import sequence_params, timeout_secs
from chat.schemas.requests import ChatRequest, CompletionRequest, RunOptions
from chat.services.turn_plan import ConversationChanged, plan_turn, store_turn
from chat.services.turn_preparation import prepare
from chat.services.validation import check_options, validate_request
from chat.summarization.long_input import after_part
from inference.config.tokenizer import get_tokenizer
from inference.errors import InferenceError, KeyTaken, StoreUnavailable
from inference.models import Generation, Status
from inference.queue import generations
from inference.runtime.database import retry_transaction

# Two requests with one new Idempotency-Key: the later one finds the row of the earlier at its second look.
MAX_LOOKS = 3


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A generation under way. ``needs_preparing``: ``prepare_turn`` has to be called before it can be queued."""

    generation_id: uuid.UUID
    conversation_id: uuid.UUID | None = None
    message_id: uuid.UUID | None = None
    needs_preparation: bool = False
    replayed: bool = False


@dataclass(frozen=True)
class _Key:
    """An Idempotency-Key with what it stands for."""

    key: str | None
    digest: str

    def find(self, caller: Caller) -> Generation | None:
        if self.key is None:
            return None
        return generations.find_by_key(owner=caller.key, idempotency_key=self.key, request_digest=self.digest)


def start_turn(
    *, caller: Caller, request: ChatRequest, idempotency_key: str | None = None, request_digest: str = ""
) -> Turn:
    """Store a turn and queue it, or (memories wanted) leave it ``preparing``; a refusal leaves nothing stored."""
    key = _Key(idempotency_key, request_digest or request.digest)
    return _once(caller, key, lambda: _start_chat(caller, request, key))


def start_completion(
    *, caller: Caller, request: CompletionRequest, idempotency_key: str | None = None, request_digest: str = ""
) -> Turn:
    """Queue a raw prompt: no template, nothing kept beyond the answer."""
    key = _Key(idempotency_key, request_digest or request.digest)
    return _once(caller, key, lambda: _start_completion(caller, request, key))


def prepare_turn(*, generation_id: uuid.UUID) -> None:
    """Retrieve memories, render, queue. Safe to call twice or at the same time; waits RAG_TIMEOUT_SECS at most."""
    with translated():
        prepare(generation_id)


def continue_long_input(*, generation_id: uuid.UUID) -> None:
    """The next step of a turn whose message is read in parts. Safe to call twice."""
    with translated():
        turn = after_part(generation_id)
    if turn:
        prepare_turn(generation_id=turn)


def cancel(*, caller: Caller, generation_id: uuid.UUID) -> Generation:
    """Stop a generation of the caller's. Raises NotFound, or Conflict (``already_ended``)."""
    generation = get_generation(caller=caller, generation_id=generation_id)
    with translated():
        retry_transaction(lambda: generations.request_cancel(generation_id=generation.pk))
    return get_generation(caller=caller, generation_id=generation_id)


def get_generation(*, caller: Caller, generation_id: uuid.UUID) -> Generation:
    """One generation of the caller's (message, conversation and retrieval loaded); raises NotFound."""
    with translated():
        related = Generation.objects.select_related("message__conversation", "message__retrieval")
        generation = related.filter(pk=generation_id, owner=caller.key).first()
    if generation is None:
        raise NotFound("there is no such generation", field="generation_id")
    return generation


def _once(caller: Caller, key: _Key, start: Callable[[], Generation]) -> Turn:
    """The generation that the key stands for already, else a new one."""
    with translated():
        for _ in range(MAX_LOOKS):
            earlier = key.find(caller)
            # Before any other check: a repeated request must not fail where the first one did not.
            if earlier:
                return _turn(earlier, replayed=True)
            try:
                return _turn(retry_transaction(start))
            except KeyTaken:
                continue
            except (ChatError, InferenceError):
                # The same request, sent at the same time, may be what it is refused for: it took the last place, or
                # the conversation is busy with it.
                if key.find(caller) is None:
                    raise
        raise StoreUnavailable("another request with this Idempotency-Key does not come to an end")


def _start_chat(caller: Caller, request: ChatRequest, key: _Key) -> Generation:
    asked = validate_request(request)
    request = request.within(get_tokenizer().context_size)
    _check(caller, request)
    for may_continue in (True, False):
        plan = plan_turn(caller=caller, request=request, asked=asked, may_continue=may_continue)
        try:
            return store_turn(plan, idempotency_key=key.key, request_digest=key.digest)
        except ConversationChanged:
            # Found by its texts, it is not the same conversation any more: a new one begins.
            continue
    raise ConversationBusy("another message of this conversation came first")


def _start_completion(caller: Caller, request: CompletionRequest, key: _Key) -> Generation:
    tokenizer = get_tokenizer()
    request = request.within(tokenizer.context_size)
    _check(caller, request)
    ids = tokenizer.encode(tokenizer.bos_text, special=True) + tokenizer.encode(request.prompt)
    if len(ids) >= tokenizer.context_size:
        raise ContextOverflow(prompt_tokens=len(ids), context_size=tokenizer.context_size)
    return generations.create(
        owner=caller.key,
        params=sequence_params(request, None, n_prompt=len(ids), context_size=tokenizer.context_size),
        priority=request.priority,
        prompt_ids=ids,
        timeout_secs=timeout_secs(request),
        session_id=request.session_id,
        ephemeral=True,
        idempotency_key=key.key,
        request_digest=key.digest,
    )


def _check(caller: Caller, options: RunOptions) -> None:
    check_options(options, get_tokenizer())
    generations.check_capacity(owner=caller.key, priority=options.priority)


def _turn(generation: Generation, *, replayed: bool = False) -> Turn:
    message = getattr(generation, "message", None)
    return Turn(
        generation_id=generation.pk,
        conversation_id=message.conversation_id if message else None,
        message_id=message.pk if message else None,
        needs_preparation=generation.status == Status.PREPARING,
        replayed=replayed,
    )
