"""The part of a turn that waits for memories: retrieve, render, queue.

Whoever does it, web process or Celery task, finds all it needs in the generation's details; doing it twice is harmless.
"""

import logging
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import msgspec
from django.db import OperationalError, transaction
from django.utils import timezone

from chat.enums import Strategy
from chat.error_translation import translate
from chat.models import Conversation, Message, Retrieval, Role
from chat.prompting.builder import BuiltPrompt, PromptBuilder, wants_memories
from chat.prompting.message_groups import DialogueMessage, dialogue_of, update_renderings
from chat.rag.query import RetrievalQuery, RetrievalResult, SourceFilters
from chat.rag.retrieval import retriever
from chat.rag.sources import Source, source_from_context
from chat.schemas.requests import ChatRequest
from chat.services.query_rewriting import earlier_questions, rewrite_query
from chat.services.retrieval_log import record
from chat.services.turn_context import TurnContext
from chat.summarization.long_input import read_in_parts
from chat.summarization.rolling import AFTER_ANSWER_TASK, history_summary
from inference.errors import StoreUnavailable
from inference.models import Generation, Status
from inference.queue import generations

log = logging.getLogger(__name__)

PREPARE_TASK = "chat.prepare"
MAX_QUERY_CHARS = 2_000


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What has to be searched and said. ``conversation_id`` and ``said`` are for turns that are not stored: the
    history they begin with and the messages that only pass through."""

    query: str
    top_k: int
    filters: SourceFilters
    documents: tuple[Source, ...] = ()
    max_tokens: int
    strategy: Strategy
    system: str = ""
    conversation_id: str | None = None
    said: tuple[tuple[str, str], ...] = field(default=())
    searches: bool = True
    is_long: bool = False  # the message has to be read in parts first

    @classmethod
    def wanted_by(
        cls, request: ChatRequest, context: TurnContext, strategy: Strategy, *, is_long: bool = False
    ) -> Self | None:
        """None when the request wants no memories and its message can be read at once."""
        if not (wants_memories(request) or is_long):
            return None
        asked = context.asked
        passing = () if request.store else (*asked.earlier, DialogueMessage(Role.USER, asked.user))
        # What branches off and is not stored has its history with it.
        is_known = request.conversation_id is not None and request.replaces is None
        return cls(
            query=asked.user,
            top_k=request.rag_top_k,
            filters=request.filters,
            documents=tuple(source_from_context(item) for item in request.context),
            max_tokens=request.max_tokens,
            strategy=strategy,
            system=context.system,
            conversation_id=str(request.conversation_id) if is_known and not request.store else None,
            said=tuple((str(said.role), said.text) for said in passing),
            searches=wants_memories(request),
            is_long=is_long,
        )

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def prepare(generation_id: uuid.UUID) -> None:
    """Does nothing when the generation is not ``preparing`` any more."""
    rows = Generation.objects.filter(pk=generation_id, status=Status.PREPARING)
    generation = rows.select_related("message__conversation").first()
    if generation is None:
        return
    # No transaction around the search: it waits for somebody else's service.
    try:
        preparation = msgspec.convert(generation.details["preparation"], Preparation)
        if preparation.is_long and not _is_read(generation, preparation):
            return  # the end of each part calls this again
        said = _said_before(getattr(generation, "message", None), preparation)
        query, search = _search(generation, preparation, said)
        _finish(generation, preparation, said, query, search)
    except (StoreUnavailable, OperationalError):
        # Passing: the sweep has the row prepared again, by whoever is there then.
        log.warning("Generation %s could not be prepared now", generation_id, exc_info=True)
        raise
    except Exception as error:
        # A row that cannot be prepared would be tried for ever; its client is told instead.
        log.exception("Generation %s cannot be prepared", generation_id)
        told = translate(error)
        generations.fail(generation_id=generation_id, code=told.code, message=told.message)


def _is_read(generation: Generation, preparation: Preparation) -> bool:
    answer: Message = generation.message
    question = answer.conversation.messages.get(position=answer.position - 1)
    builder = PromptBuilder(
        own_system=answer.conversation.system_prompt,
        max_tokens=preparation.max_tokens,
        strategy=preparation.strategy,
    )
    return read_in_parts(generation, question, builder)


def _search(
    generation: Generation, preparation: Preparation, said: Sequence[DialogueMessage]
) -> tuple[RetrievalQuery, RetrievalResult]:
    """The memories of the question, taken with what it refers to; and how they were asked for."""
    asked = rewrite_query(preparation.query, earlier_questions(said))
    query = RetrievalQuery(
        text=asked.text[:MAX_QUERY_CHARS],
        top_k=preparation.top_k,
        filters=preparation.filters,
        owner=generation.owner,
        now=timezone.localtime(),
    )
    search = retriever.retrieve(query) if preparation.searches else RetrievalResult()
    understood = {"refers_to": asked.refers_to, **search.understood} if asked.refers_to else search.understood
    return query, replace(search, understood=understood)


def _finish(
    generation: Generation,
    preparation: Preparation,
    said: Sequence[DialogueMessage],
    query: RetrievalQuery,
    search: RetrievalResult,
) -> None:
    answer: Message | None = getattr(generation, "message", None)
    own_system = answer.conversation.system_prompt if answer else preparation.system
    builder = PromptBuilder(
        own_system=own_system,
        max_tokens=preparation.max_tokens,
        strategy=preparation.strategy,
        history_summary=history_summary(_conversation_of(answer, preparation), preparation.strategy),
    )
    built = builder.build(said, [*preparation.documents, *search.sources])
    with transaction.atomic():
        details = _details(built, search, is_stored=answer is not None)
        is_long = answer is not None and builder.may_call_for_summary(built.prompt)
        queued = generations.enqueue(
            generation_id=generation.pk,
            prompt_ids=built.prompt.ids,
            details=details,
            highest_label=built.highest_label,
            follow_up_task=AFTER_ANSWER_TASK if is_long else "",
        )
        # Not queued: somebody else was faster, or it was cancelled. Theirs is the rendering that counts.
        if queued and answer:
            _keep(answer, built)
            if preparation.searches or built.sources:
                kept = record(query, search, built.sources)
                Retrieval.objects.update_or_create(message=answer, defaults=kept)


def _said_before(answer: Message | None, preparation: Preparation) -> list[DialogueMessage]:
    if answer:
        return dialogue_of(list(answer.conversation.messages.in_order().filter(position__lt=answer.position)))
    passing = [DialogueMessage(Role(role), text) for role, text in preparation.said]
    conversation = _conversation_of(answer, preparation)
    return [*(dialogue_of(list(conversation.messages.in_order())) if conversation else []), *passing]


def _conversation_of(answer: Message | None, preparation: Preparation) -> Conversation | None:
    if answer:
        return answer.conversation
    if preparation.conversation_id is None:
        return None
    return Conversation.objects.filter(pk=preparation.conversation_id).first()


def _details(built: BuiltPrompt, search: RetrievalResult, *, is_stored: bool) -> dict[str, Any]:
    details: dict[str, Any] = {"history": built.history_note}
    if not is_stored:
        details |= {"sources": [source.as_wire() for source in built.sources], "rag_error": search.error}
    return details


def _keep(answer: Message, built: BuiltPrompt) -> None:
    """What the turn was rendered to."""
    changed = update_renderings(built.groups, built.prompt.exchanges)
    Message.objects.bulk_update(changed, ["rendered", "rendered_with"], batch_size=100)
    Message.objects.filter(pk=answer.pk).update(rendered_with=built.answer_key)
