"""Prepare a stored turn that waits for memories: load its context, retrieve, build the prompt, queue it.

The web process or a Celery task does it; both find all they need in the generation's details, and doing it twice
changes nothing.
"""

import logging
import uuid
from typing import Any

import msgspec
from django.db import OperationalError, transaction

from chat.enums import Effort, Strategy
from chat.error_translation import translate
from chat.models import Conversation, Message, Retrieval, Role
from chat.prompting.builder import BuiltPrompt, PromptBuilder
from chat.prompting.message_groups import DialogueMessage, dialogue_of, update_renderings
from chat.prompting.system_prompt import with_instructions
from chat.rag.query import SourceFilters
from chat.rag.sources import Source
from chat.schemas.requests import RESPONSE
from chat.services.turn_recall import recaller_of
from chat.services.turn_retrieval import TurnRetrieval, retrieve
from chat.summarization.long_input import read_in_parts
from chat.summarization.rolling import AFTER_ANSWER_TASK, history_summary, raise_priority
from chat.summarization.titles import is_awaited
from chat.tool_calling.tools import Tool
from inference.errors import StoreUnavailable
from inference.models import Generation, Status
from inference.queue import generations

log = logging.getLogger(__name__)

PREPARE_TASK = "chat.prepare"

# Names in the rows of generations that an earlier version stored.
STORED_NAMES = {"system_prompt": "system", "transient": "said", "needs_retrieval": "searches"}


class Preparation(msgspec.Struct, frozen=True, kw_only=True, rename=STORED_NAMES):
    """The work that a turn waits for, as the generation's details hold it.

    ``conversation_id`` and ``transient`` (role, text and thought of each; an earlier version stored no thought) belong
    to turns that are not stored: the conversation that they read, and the messages that no row holds.
    """

    query: str
    top_k: int
    filters: SourceFilters
    documents: tuple[Source, ...] = ()
    max_tokens: int
    strategy: Strategy
    system_prompt: str = ""
    conversation_id: uuid.UUID | None = None
    transient: tuple[tuple[str, ...], ...] = ()
    needs_retrieval: bool = True
    is_long: bool = False  # the message is read in parts first
    prefill: str = ""
    tools: tuple[Tool, ...] = ()
    effort: Effort | None = None
    recalls: bool = False
    metadata: dict[str, str] = {}
    instructions: str = ""  # included in ``system_prompt``

    def as_json(self) -> dict[str, Any]:
        columns: dict[str, Any] = msgspec.to_builtins(self)
        return columns


def prepare(generation_id: uuid.UUID) -> None:
    """Do nothing for a generation that is not ``preparing`` any more."""
    rows = Generation.objects.filter(pk=generation_id, status=Status.PREPARING)
    generation = rows.select_related("message__conversation").first()
    if generation is None:
        return
    # No transaction around the retrieval: it waits for another service.
    try:
        _prepare(generation)
    except (StoreUnavailable, OperationalError) as error:
        # Passing: the reaper sends the task again.
        log.warning("preparation failed, to be repeated generation=%s error=%s", generation_id, error, exc_info=True)
        raise
    except Exception as error:
        # Repeating cannot help: without an end the row would be prepared for ever.
        log.exception("generation cannot be prepared generation=%s", generation_id)
        reported = translate(error)
        generations.fail(generation_id=generation_id, code=reported.code, message=reported.message)


def _prepare(generation: Generation) -> None:
    preparation = msgspec.convert(generation.details["preparation"], Preparation)
    answer: Message | None = getattr(generation, "message", None)
    conversation = answer.conversation if answer else None
    if conversation is None and preparation.conversation_id is not None:
        conversation = Conversation.objects.filter(pk=preparation.conversation_id).first()
    system_prompt = preparation.system_prompt
    if answer:
        system_prompt = with_instructions(preparation.instructions, answer.conversation.system_prompt)
    dialogue = _dialogue(answer, conversation, preparation)
    recaller = recaller_of(
        preparation.query,
        dialogue=dialogue,
        conversation=conversation,
        n_stored=len(dialogue) - len(preparation.transient),
    )
    builder = PromptBuilder(
        system_prompt=system_prompt,
        max_tokens=preparation.max_tokens,
        strategy=preparation.strategy,
        summary=history_summary(conversation, preparation.strategy),
        prefill=preparation.prefill,
        tools=preparation.tools,
        effort=preparation.effort,
        recaller=recaller if preparation.recalls else None,
    )
    if preparation.is_long and answer:
        question = answer.conversation.messages.get(position=answer.position - 1)
        if not read_in_parts(generation, question, builder):
            return  # the end of each part sends this task again
        dialogue = _dialogue(answer, conversation, preparation)
    retrieval = retrieve(
        preparation.query,
        dialogue=dialogue,
        owner=generation.owner,
        filters=preparation.filters,
        top_k=preparation.top_k,
        is_enabled=preparation.needs_retrieval,
    )
    prompt = builder.build(dialogue, [*preparation.documents, *retrieval.result.sources])
    _enqueue(generation, answer, preparation, retrieval, prompt)


def _dialogue(
    answer: Message | None, conversation: Conversation | None, preparation: Preparation
) -> list[DialogueMessage]:
    rows = conversation.messages.in_order() if conversation else Message.objects.none()
    stored = dialogue_of(list(rows.filter(position__lt=answer.position) if answer else rows))
    transient = (
        DialogueMessage(Role(role), text, thought="".join(thought)) for role, text, *thought in preparation.transient
    )
    return [*stored, *transient]


def _enqueue(
    generation: Generation,
    answer: Message | None,
    preparation: Preparation,
    retrieval: TurnRetrieval,
    prompt: BuiltPrompt,
) -> None:
    details: dict[str, Any] = {"history": prompt.history_note}
    if preparation.metadata:
        details["metadata"] = preparation.metadata
    if RESPONSE in generation.details:
        details[RESPONSE] = generation.details[RESPONSE]
    if answer is None:
        details |= {
            "sources": [source.as_wire() for source in prompt.sources],
            "rag_error": retrieval.result.error,
        }
    has_follow_up = prompt.may_need_summary or is_awaited(answer.conversation if answer else None)
    with transaction.atomic():
        is_queued = generations.enqueue(
            generation_id=generation.pk,
            prompt_ids=prompt.ids,
            details=details,
            highest_label=prompt.highest_label,
            n_shared=prompt.n_shared,
            follow_up_task=AFTER_ANSWER_TASK if answer and has_follow_up else "",
        )
        # Not queued: another process was faster, or the turn was cancelled. Only the queued prompt's rendering counts.
        if not (is_queued and answer):
            return
        if prompt.history_note.get("messages_left_out"):
            raise_priority(answer.conversation)
        changed = update_renderings(prompt.groups, prompt.exchanges)
        Message.objects.bulk_update(changed, ["rendered", "rendered_with"], batch_size=100)
        Message.objects.filter(pk=answer.pk).update(rendered_with=prompt.answer_key)
        if preparation.needs_retrieval or prompt.sources:
            columns = retrieval.as_columns(prompt.sources)
            Retrieval.objects.update_or_create(message=answer, defaults=columns)
