"""Chat turns: from an authorised request to a stored, queued generation.

    validate_request -> load_context -> plan_turn -> store_turn -> wake-up message (at its commit)
                        a turn with memories: store_turn, then prepare_turn: retrieve -> plan -> queue

Views, consumers, commands and tasks enter here alone; every failure is raised as a ChatError.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

from django.db import transaction

from chat.access import usage
from chat.access.caller_limits import limits_of
from chat.access.callers import Caller
from chat.error_translation import translated
from chat.errors import ChatError, ConversationBusy, NotFound
from chat.prompting.sequence_params import sequence_params, timeout_secs
from chat.schemas.requests import ChatRequest, CompletionRequest
from chat.services.turn_context import load_context
from chat.services.turn_plan import plan_turn
from chat.services.turn_preparation import prepare
from chat.services.turn_store import ConversationChanged, store_choices
from chat.services.validation import check_options, raw_prompt_ids, validate_request
from chat.summarization.long_input import after_part
from inference.config.tokenizer import get_tokenizer
from inference.errors import InferenceError, KeyTaken, StoreUnavailable
from inference.models import Generation, Status
from inference.queue import generations, parts
from inference.runtime import abort
from inference.runtime.database import retry_transaction

# Of two requests with one new Idempotency-Key, the later finds the row of the earlier at its second look-up.
MAX_LOOKUPS = 3


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A started generation. With ``needs_preparation``, ``prepare_turn`` has to be called before it is queued."""

    generation_id: uuid.UUID
    conversation_id: uuid.UUID | None = None
    message_id: uuid.UUID | None = None
    needs_preparation: bool = False
    replayed: bool = False
    alternatives: tuple["Turn", ...] = ()  # further answers of the same request
    has_token_ids: bool = False  # its lines have the ids of the tokens


@dataclass(frozen=True)
class _IdempotencyKey:
    """A key with the digest of the request that it was sent with; ``value`` None: none was sent."""

    value: str | None
    digest: str

    def find(self, caller: Caller) -> Generation | None:
        if self.value is None:
            return None
        return generations.find_by_key(owner=caller.key, idempotency_key=self.value, request_digest=self.digest)


def start_turn(
    *, caller: Caller, request: ChatRequest, idempotency_key: str | None = None, request_digest: str = ""
) -> Turn:
    """Store a turn, queued or (with memories to retrieve) ``preparing``; a refused request leaves nothing stored."""
    key = _IdempotencyKey(idempotency_key, request_digest or request.digest)

    def store() -> list[Generation]:
        validated = validate_request(request, caller=caller, tokenizer=get_tokenizer())
        max_of_owner = _check_limits(caller)
        generations.check_capacity(owner=caller.key, priority=request.priority, max_of_owner=max_of_owner)
        for may_continue in (True, False):
            plan = plan_turn(load_context(validated, may_continue=may_continue))
            abort.check()
            try:
                return store_choices(plan, idempotency_key=key.value, request_digest=key.digest)
            except ConversationChanged:
                # A conversation found by its history is another one by now: the second attempt begins a new one.
                continue
        raise ConversationBusy("another message of this conversation came first")

    return _start_once(caller, key, store)


def start_completion(
    *, caller: Caller, request: CompletionRequest, idempotency_key: str | None = None, request_digest: str = ""
) -> Turn:
    """Queue a raw prompt without a template; only its answer is stored."""
    key = _IdempotencyKey(idempotency_key, request_digest or request.digest)

    def store() -> list[Generation]:
        tokenizer = get_tokenizer()
        bounded = request.within(tokenizer.context_size)
        check_options(bounded, tokenizer)
        max_of_owner = _check_limits(caller)
        generations.check_capacity(owner=caller.key, priority=bounded.priority, max_of_owner=max_of_owner)
        prompts = [raw_prompt_ids(prompt, bounded, tokenizer) for prompt in (bounded.prompt, *bounded.further_prompts)]
        abort.check()
        choices = [(ids, number) for ids in prompts for number in range(bounded.n)]
        with transaction.atomic():
            return [
                generations.create(
                    owner=caller.key,
                    params=sequence_params(
                        bounded.of_choice(number), None, n_prompt=len(ids), context_size=tokenizer.context_size
                    ),
                    priority=bounded.priority,
                    prompt_ids=ids,
                    timeout_secs=timeout_secs(bounded),
                    session_id=bounded.session_id,
                    ephemeral=True,
                    idempotency_key=None if index else key.value,
                    request_digest="" if index else key.digest,
                    max_of_owner=max_of_owner,
                )
                for index, (ids, number) in enumerate(choices)
            ]

    return _start_once(caller, key, store)


def _check_limits(caller: Caller) -> int | None:
    """Return how many answers the caller may have under way, None for any number. Raises TooManyRequests."""
    usage.check_tokens(caller)
    return limits_of(caller).answers_at_once


def prepare_turn(*, generation_id: uuid.UUID) -> None:
    """Retrieve, build the prompt, queue. Safe to call twice or concurrently; waits RAG_TIMEOUT_SECS at most."""
    with translated():
        prepare(generation_id)


def continue_long_input(*, generation_id: uuid.UUID) -> None:
    """Take the next step of a turn after a part of its long message was read. Safe to call twice."""
    with translated():
        turn = after_part(generation_id)
    if turn:
        prepare_turn(generation_id=turn)


def cancel(*, caller: Caller, generation_id: uuid.UUID) -> Generation:
    """Stop a generation of the caller's. Raises NotFound, or Conflict (``already_ended``)."""
    generation = get_generation(caller=caller, generation_id=generation_id)
    with translated():
        retry_transaction(lambda: generations.request_cancel(generation_id=generation.pk))
        parts.cancel_unneeded(turn_id=generation.pk)
    return get_generation(caller=caller, generation_id=generation_id)


def get_generation(*, caller: Caller, generation_id: uuid.UUID) -> Generation:
    """Return a generation of the caller's with message, conversation and retrieval. Raises NotFound."""
    with translated():
        related = Generation.objects.select_related("message__conversation", "message__retrieval")
        generation = related.filter(pk=generation_id, owner=caller.key).first()
    if generation is None:
        raise NotFound("there is no such generation", field="generation_id")
    return generation


def _start_once(caller: Caller, key: _IdempotencyKey, store: Callable[[], list[Generation]]) -> Turn:
    """Return the turn that the key already stands for, else start one."""
    with translated():
        for _ in range(MAX_LOOKUPS):
            earlier = key.find(caller)
            # Before any other check: a repeated request must not fail where the first one did not.
            if earlier:
                return turn_of(earlier, replayed=True)
            try:
                first, *further = retry_transaction(store)
                return replace(turn_of(first), alternatives=tuple(map(turn_of, further)))
            except KeyTaken:
                continue
            except (ChatError, InferenceError):
                # The same request, sent twice at once, may be the reason for its own refusal: the first one took the
                # last place in the queue, or made the conversation busy.
                if key.find(caller) is None:
                    raise
        raise StoreUnavailable("another request with this Idempotency-Key does not finish")


def turn_of(generation: Generation, *, replayed: bool = False) -> Turn:
    """Return the turn of a stored generation."""
    message = getattr(generation, "message", None)
    return Turn(
        generation_id=generation.pk,
        conversation_id=message.conversation_id if message else None,
        message_id=message.pk if message else None,
        needs_preparation=generation.status == Status.PREPARING,
        replayed=replayed,
    )
