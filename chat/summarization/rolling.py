"""Rolling summaries of stored conversations: begun after an answer, made piece by piece, taken over when made.

    answer ends --ring--> after_answer: due? --> Summary (making) + generation of the first piece
    generation ends --ring--> after_piece: next piece, or the summary is made (or failed) and perhaps the next is due

Each step is one transaction that empties the outbox of the generation that ended; until then the sweep rings again.
"""

import logging
import uuid
from dataclasses import dataclass, replace

from django.conf import settings
from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from chat.enums import Strategy
from chat.models import Conversation, Message, Role, Summary, SummaryState
from chat.prompting.builder import PromptBuilder, sequence_params
from chat.prompting.context_window import ContextWindow, Exchange, HistorySummary
from chat.prompting.message_groups import MessageGroup, dialogue_of, group_messages
from chat.schemas.requests import RunOptions
from chat.summarization.policy import end_of_summarized
from chat.summarization.summarizer import Summarizer
from inference.models import Generation, Priority, Status
from inference.queue import generations

log = logging.getLogger(__name__)

AFTER_ANSWER_TASK = "chat.after_answer"
AFTER_PIECE_TASK = "chat.after_piece"
# How often one piece is asked for again when nothing came, and how lively then.
MAX_EMPTY, LIVELIER = 3, 0.9


@dataclass(frozen=True, kw_only=True)
class PendingSummary:
    """A summary to be begun, with the prompt of its first piece."""

    conversation: Conversation
    former_version: int  # of the summary that it goes on from; 0: none
    covers_until: int
    max_tokens: int  # of the answers in this conversation, on which its budget depends
    prompt_ids: list[int]
    summarizer: Summarizer


def history_summary(conversation: Conversation | None, strategy: Strategy) -> HistorySummary:
    """What the conversation's summary has of it; nothing for strategies that know none."""
    if conversation is None or conversation._state.adding or strategy is not Strategy.SUMMARIZE:
        return HistorySummary()
    latest = conversation.summaries.order_by("-version").first()
    if latest is None:
        return HistorySummary()
    trouble = "" if latest.state == SummaryState.MADE else f"{latest.state}: {latest.error}".rstrip(": ")
    made = latest if latest.state == SummaryState.MADE else conversation.summaries.made().first()
    return replace(history_summary_of(made, strategy), trouble=trouble)


def history_summary_of(made: Summary | None, strategy: Strategy) -> HistorySummary:
    """What this summary has of its conversation."""
    if made is None or strategy is not Strategy.SUMMARIZE:
        return HistorySummary()
    return HistorySummary(summary=made.text, n_messages=made.covers_until + 1, version=made.version)


def after_answer(generation_id: uuid.UUID) -> None:
    """Begin a summary if the answer has made one due. Safe to call twice or at the same time."""
    pending = _due_after(generation_id)
    with transaction.atomic():
        if generations.claim_follow_up(generation_id=generation_id) and pending:
            _begin(pending)


def after_piece(generation_id: uuid.UUID) -> None:
    """Go on with the summary whose piece has been read. Safe to call twice or at the same time."""
    rows = Generation.objects.select_related("summary__conversation").filter(pk=generation_id)
    generation = rows.first()
    if generation is None or not generation.is_ended:
        return
    summary: Summary | None = getattr(generation, "summary", None)
    if summary is None or summary.state != SummaryState.MAKING:
        generations.claim_follow_up(generation_id=generation_id)
        return
    if _advance(summary, generation):
        max_tokens = generation.details["summary"]["max_tokens"]
        pending = _due(summary.conversation, max_tokens)
        if pending is None:
            _read_ahead(summary.conversation, max_tokens)
            return
        with transaction.atomic():
            _begin(pending)


def _due_after(generation_id: uuid.UUID) -> PendingSummary | None:
    row = Generation.objects.select_related("message__conversation").filter(pk=generation_id).first()
    message: Message | None = getattr(row, "message", None)
    if row is None or message is None:
        return None
    return _due(message.conversation, row.params["max_tokens"])


@dataclass(frozen=True)
class ConversationState:
    """A conversation as a prompt would see it now, exchanges rendered as follow-ups."""

    builder: PromptBuilder
    former: HistorySummary
    groups: list[MessageGroup]
    history: ContextWindow
    exchanges: list[Exchange]


def _state(conversation: Conversation, max_tokens: int) -> ConversationState:
    former = history_summary(conversation, Strategy.SUMMARIZE)
    builder = PromptBuilder(
        own_system=conversation.system_prompt,
        max_tokens=max_tokens,
        strategy=Strategy.SUMMARIZE,
        history_summary=former,
    )
    groups = group_messages(dialogue_of(list(conversation.messages.in_order())))
    history = builder.history(groups)
    exchanges = [group.as_exchange() for group in groups]
    n_covered = history.n_covered(exchanges)
    exchanges[n_covered:] = [history.as_follow_up(exchange) for exchange in exchanges[n_covered:]]
    return ConversationState(builder, former, groups, history, exchanges)


def _due(conversation: Conversation, max_tokens: int) -> PendingSummary | None:
    """Worked out before a transaction is begun: counting a long conversation must keep no other writer waiting."""
    if conversation.summaries.making().exists():
        return None
    state = _state(conversation, max_tokens)
    end = end_of_summarized(state.history, state.exchanges)
    if end is None:
        return None
    n_messages = sum(group.n_messages for group in state.groups[:end])
    summarizer = Summarizer(state.builder.format, state.builder.budget)
    first_piece = summarizer.pieces(_texts(conversation, state.former.n_messages, n_messages))[0]
    return PendingSummary(
        conversation=conversation,
        former_version=state.former.version,
        covers_until=n_messages - 1,
        max_tokens=max_tokens,
        prompt_ids=summarizer.prompt(first_piece, state.former.summary),
        summarizer=summarizer,
    )


def _read_ahead(conversation: Conversation, max_tokens: int) -> None:
    """Have the new beginning computed while nobody waits for it; the next turn finds it in the prefix cache."""
    if conversation.messages.unfinished().exists():
        # Somebody writes faster than this could be computed: the next turn would wait beside it, and compute the same.
        return
    state = _state(conversation, max_tokens)
    n_covered = state.history.n_covered(state.exchanges)
    if not (0 < n_covered < len(state.exchanges) and state.exchanges[-1].answer):
        return
    ids = state.history.beginning(state.exchanges, n_covered)
    if len(ids) > state.builder.budget.hard_limit:
        return
    options = RunOptions(max_tokens=1, temperature=0.0)
    generations.create(
        owner=conversation.owner,
        params=sequence_params(
            options, state.builder.format, n_prompt=len(ids), context_size=state.builder.budget.context_size
        ),
        priority=Priority.BATCH,
        prompt_ids=ids,
        timeout_secs=settings.REQUEST_TIMEOUT_SECS,
        ephemeral=True,
        capped=False,
    )


def _begin(pending: PendingSummary) -> None:
    """Make the rows. Whoever comes second at the same time finds one being made, or made meanwhile."""
    conversation = Conversation.objects.select_for_update().filter(pk=pending.conversation.pk).first()
    if conversation is None:
        return
    made = conversation.summaries.made().first()
    if conversation.summaries.making().exists() or (made.version if made else 0) != pending.former_version:
        log.info("conversation %s: somebody else began its summary", conversation.pk)
        return
    Summary.objects.create(
        conversation=conversation,
        version=(conversation.summaries.aggregate(last=Max("version"))["last"] or 0) + 1,
        covers_until=pending.covers_until,
        generation=_ask(
            conversation,
            PieceRequest(summarizer=pending.summarizer, prompt_ids=pending.prompt_ids, max_tokens=pending.max_tokens),
        ),
    )


@dataclass(frozen=True, kw_only=True)
class PieceRequest:
    """What the summariser is asked next: which piece, and how often that one has come to nothing."""

    summarizer: Summarizer
    prompt_ids: list[int]
    max_tokens: int
    piece: int = 0
    n_empty: int = 0


def _ask(conversation: Conversation, question: PieceRequest) -> Generation:
    """A generation that reads one piece, behind everybody's answers."""
    summarizer, prompt_ids = question.summarizer, question.prompt_ids
    # A small model may begin with its end; less likely words get it going.
    options = replace(summarizer.options, temperature=LIVELIER) if question.n_empty else summarizer.options
    return generations.create(
        owner=conversation.owner,
        params=sequence_params(
            options, summarizer.format, n_prompt=len(prompt_ids), context_size=summarizer.budget.context_size
        ),
        priority=Priority.BATCH,
        prompt_ids=prompt_ids,
        follow_up_task=AFTER_PIECE_TASK,
        timeout_secs=settings.REQUEST_TIMEOUT_SECS,
        details={"summary": {"piece": question.piece, "max_tokens": question.max_tokens, "n_empty": question.n_empty}},
        # The answer was let in; what follows from it is not refused for a full queue.
        capped=False,
    )


def _advance(summary: Summary, generation: Generation) -> bool:
    """What the end of a piece's generation comes to; True when the summary is made by it."""
    text, asked = generation.text.strip(), {"n_empty": 0} | generation.details["summary"]  # older ones have no count
    if generation.status != Status.COMPLETE:
        why = generation.error_code or f"the generation is {generation.status}"
        _settle(summary, generation, state=SummaryState.FAILED, error=why)
        return False
    if not text and asked["n_empty"] >= MAX_EMPTY:
        _settle(summary, generation, state=SummaryState.FAILED, error="the summary is empty")
        return False
    summarizer = _summarizer(asked["max_tokens"])
    former = summary.conversation.summaries.made().filter(version__lt=summary.version).first()
    start = former.covers_until + 1 if former else 0
    pieces = summarizer.pieces(_texts(summary.conversation, start, summary.covers_until + 1))
    piece = asked["piece"] + 1 if text else asked["piece"]
    if piece >= len(pieces):
        n_tokens, now = summarizer.count(text), timezone.now()
        return _settle(summary, generation, state=SummaryState.MADE, text=text, n_tokens=n_tokens, made_at=now)
    so_far = text or summary.text or (former.text if former else "")
    question = PieceRequest(
        summarizer=summarizer,
        prompt_ids=summarizer.prompt(pieces[piece], so_far),
        max_tokens=asked["max_tokens"],
        piece=piece,
        n_empty=0 if text else asked["n_empty"] + 1,
    )
    _settle(summary, generation, question, text=text or summary.text)
    return False


def _settle(summary: Summary, generation: Generation, question: PieceRequest | None = None, **columns: object) -> bool:
    """Write a step down, if nobody has; with the next question where there is one."""
    with transaction.atomic():
        if not generations.claim_follow_up(generation_id=generation.pk):
            return False
        if question:
            columns["generation"] = _ask(summary.conversation, question)
        Summary.objects.making().filter(pk=summary.pk).update(**columns)
        if question:
            # Its words are in the summary; alone it would outlive the conversation.
            generations.delete(generation_ids=[generation.pk])
        if columns.get("state") == SummaryState.MADE:
            Conversation.objects.filter(pk=summary.conversation_id).update(summary=columns["text"])
    if columns.get("state") == SummaryState.FAILED:
        log.warning("conversation %s: its summary failed: %s", summary.conversation_id, columns["error"])
    return True


def _summarizer(max_tokens: int) -> Summarizer:
    builder = PromptBuilder(own_system="", max_tokens=max_tokens, strategy=Strategy.SUMMARIZE)
    return Summarizer(builder.format, builder.budget)


def _texts(conversation: Conversation, start: int, end: int) -> list[tuple[Role, str]]:
    """What was said from one position to before another."""
    messages = conversation.messages.in_order().filter(position__gte=start, position__lt=end)
    return [(Role(message.role), message.shown) for message in messages]
