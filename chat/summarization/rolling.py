"""Rolling summaries of stored conversations: started after an answer, made in pieces, used from the next turn on.

    answer ends --wake-up--> after_answer: due? --> Summary (making) + generation of the first piece
    generation ends --wake-up--> after_piece: next piece, or the summary is made (or failed), and the next may be due

A piece's text is checked before it is used: one that is no summary is asked for once more in another way, then replaced
by an extract. While turns are left out without a summary in their place, pieces have the priority of answers, and a
summary has so few of them that it is used soon; the next one takes in what remains.

Each step is one transaction that also clears ``follow_up_task`` of the ended generation; until then the reaper sends
the wake-up message again.
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
from chat.prompting.builder import PromptBuilder
from chat.prompting.context_window import ContextWindow, Exchange, HistorySummary
from chat.prompting.message_groups import MessageGroup, dialogue_of, group_messages
from chat.prompting.sequence_params import sequence_params
from chat.schemas.requests import RunOptions
from chat.summarization import titles
from chat.summarization.checking import problem_of
from chat.summarization.extract import extract, statements
from chat.summarization.policy import end_of_summarized
from chat.summarization.summarizer import Summarizer
from inference.models import Generation, Priority, Status
from inference.queue import generations

log = logging.getLogger(__name__)

AFTER_ANSWER_TASK = "chat.after_answer"
AFTER_PIECE_TASK = "chat.after_piece"
# Further attempts at a piece whose text is no summary; then an extract takes its place.
MAX_REJECTED = 1
# Of a summary while turns are left out: the next prompts have it, and another one takes in what remains. Each is a new
# prefix for the conversation.
MAX_PIECES_AWAITED = 2


@dataclass(frozen=True, kw_only=True)
class PieceRequest:
    """The next prompt of the summarizer; ``n_rejected`` counts the attempts at this piece that were no summary."""

    summarizer: Summarizer
    prompt_ids: list[int]
    max_tokens: int  # of the answers in this conversation, on which the token budget depends
    piece: int = 0
    n_rejected: int = 0

    def details(self) -> dict[str, int]:
        """Return what the generation's details keep of it for the next step."""
        return {"piece": self.piece, "max_tokens": self.max_tokens, "n_rejected": self.n_rejected}


@dataclass(frozen=True, kw_only=True)
class PendingSummary:
    """A summary to be started. ``former_version`` is the version that it continues, 0 for none."""

    conversation: Conversation
    former_version: int
    covers_until: int
    first_piece: PieceRequest


@dataclass(frozen=True, kw_only=True)
class ConversationState:
    """A conversation as the next prompt would hold it, exchanges rendered as follow-ups."""

    builder: PromptBuilder
    groups: list[MessageGroup]
    window: ContextWindow
    exchanges: list[Exchange]


def history_summary(conversation: Conversation | None, strategy: Strategy) -> HistorySummary:
    """Load the rolling summary for a prompt; empty for strategies without one."""
    if conversation is None or conversation._state.adding or strategy is not Strategy.SUMMARIZE:
        return HistorySummary()
    latest = conversation.summaries.order_by("-version").first()
    if latest is None:
        return HistorySummary()
    if latest.state == SummaryState.MADE:
        return history_summary_of(latest, strategy)
    problem = f"{latest.state}: {latest.error}".rstrip(": ")
    return replace(history_summary_of(conversation.summaries.made().first(), strategy), problem=problem)


def history_summary_of(made: Summary | None, strategy: Strategy) -> HistorySummary:
    if made is None or strategy is not Strategy.SUMMARIZE:
        return HistorySummary()
    return HistorySummary(text=made.text, n_messages=made.covers_until + 1, version=made.version)


def after_answer(generation_id: uuid.UUID) -> None:
    """Start a summary and a title if the answer made them due. Safe to call twice or concurrently."""
    row = Generation.objects.select_related("message__conversation").filter(pk=generation_id).first()
    message: Message | None = getattr(row, "message", None)
    pending = title = None
    if row and message:
        pending = _due(message.conversation, row.params["max_tokens"])
        title = titles.due_title(message.conversation)
    with transaction.atomic():
        if message and (pending or title):
            # Before the answer's row, as a turn locks them: in the other order each could wait for the other.
            Conversation.objects.lock_unchanged(message.conversation)
        if not generations.claim_follow_up(generation_id=generation_id):
            return
        if pending:
            _begin(pending)
        if title:
            titles.begin(title)


def after_piece(generation_id: uuid.UUID) -> None:
    """Continue the summary whose piece was read. Safe to call twice or concurrently."""
    generation = Generation.objects.select_related("summary__conversation").filter(pk=generation_id).first()
    if generation is None or not generation.is_ended:
        return
    summary: Summary | None = getattr(generation, "summary", None)
    if summary is None or summary.state != SummaryState.MAKING:
        generations.claim_follow_up(generation_id=generation_id)
        return
    if not _advance(summary, generation):
        return
    max_tokens = generation.details["summary"]["max_tokens"]
    pending = _due(summary.conversation, max_tokens)
    if pending is None:
        _prefill_new_prefix(summary.conversation, max_tokens)
        return
    with transaction.atomic():
        _begin(pending)


def _state(conversation: Conversation, max_tokens: int) -> ConversationState:
    builder = PromptBuilder(
        system_prompt=conversation.system_prompt,
        max_tokens=max_tokens,
        strategy=Strategy.SUMMARIZE,
        summary=history_summary(conversation, Strategy.SUMMARIZE),
    )
    groups = group_messages(dialogue_of(list(conversation.messages.in_order())))
    window = builder.context_window(groups)
    exchanges = [group.exchange for group in groups]
    n_covered = window.n_covered(exchanges)
    exchanges[n_covered:] = window.as_follow_ups(exchanges[n_covered:])
    return ConversationState(builder=builder, groups=groups, window=window, exchanges=exchanges)


def _due(conversation: Conversation, max_tokens: int) -> PendingSummary | None:
    """Return the summary that is due, if any. To be called outside of a transaction: counting the tokens of a long
    conversation takes long, and would block writers."""
    if conversation.summaries.making().exists():
        return None
    state = _state(conversation, max_tokens)
    end = end_of_summarized(state.window, state.exchanges)
    if end is None:
        return None
    previous = state.builder.summary
    summarizer = Summarizer.of(state.builder.budget)
    if _is_waiting(conversation):
        start = state.window.n_covered(state.exchanges)
        transcripts = [group.transcript for group in state.groups[start:end]]
        end = start + summarizer.n_in_pieces(transcripts, MAX_PIECES_AWAITED)
    n_messages = sum(group.n_messages for group in state.groups[:end])
    piece = summarizer.pieces(_texts(conversation, previous.n_messages, n_messages))[0]
    prompt_ids = summarizer.prompt(piece, previous.text)
    return PendingSummary(
        conversation=conversation,
        former_version=previous.version,
        covers_until=n_messages - 1,
        first_piece=PieceRequest(summarizer=summarizer, prompt_ids=prompt_ids, max_tokens=max_tokens),
    )


def _prefill_new_prefix(conversation: Conversation, max_tokens: int) -> None:
    """Compute the new prefix at batch priority, so that the next turn finds it in the prefix cache."""
    if conversation.messages.unfinished().exists():
        # A turn is running already: it computes the same prefix, and would wait beside this generation.
        return
    state = _state(conversation, max_tokens)
    n_covered = state.window.n_covered(state.exchanges)
    if not (0 < n_covered < len(state.exchanges) and state.exchanges[-1].answer):
        return
    ids = state.window.prefix_from(state.exchanges, n_covered)
    budget = state.builder.budget
    if len(ids) > budget.hard_limit:
        return
    params = sequence_params(
        RunOptions(max_tokens=1, temperature=0.0),
        state.builder.format,
        n_prompt=len(ids),
        context_size=budget.context_size,
        n_shared=state.builder.n_shared(ids),
    )
    with transaction.atomic():
        # Locked: nothing is computed of texts that were deleted while the prompt was rendered.
        if Conversation.objects.lock_unchanged(conversation) is None:
            return
        generations.create(
            owner=conversation.owner,
            params=params,
            priority=Priority.BATCH,
            prompt_ids=ids,
            timeout_secs=settings.REQUEST_TIMEOUT_SECS,
            cache_tags=[conversation.cache_tag],
            ephemeral=True,
            capped=False,
        )


def _begin(pending: PendingSummary) -> None:
    """Store the summary's rows, unless a concurrent caller did or a newer version was made meanwhile."""
    conversation = Conversation.objects.lock_unchanged(pending.conversation)
    if conversation is None:
        return
    made = conversation.summaries.made().first()
    if conversation.summaries.making().exists() or (made.version if made else 0) != pending.former_version:
        log.info("summary already started by another process conversation=%s", conversation.pk)
        return
    Summary.objects.create(
        conversation=conversation,
        version=(conversation.summaries.aggregate(last=Max("version"))["last"] or 0) + 1,
        covers_until=pending.covers_until,
        generation=_create_piece(conversation, pending.first_piece),
    )


def _create_piece(conversation: Conversation, request: PieceRequest) -> Generation:
    """Queue the generation that reads one piece: behind all answers, unless the conversation waits for it."""
    summarizer, prompt_ids = request.summarizer, request.prompt_ids
    options = summarizer.other_options if request.n_rejected else summarizer.options
    return generations.create(
        owner=conversation.owner,
        params=sequence_params(
            options,
            summarizer.format,
            n_prompt=len(prompt_ids),
            context_size=summarizer.budget.context_size,
            n_shared=summarizer.n_shared(prompt_ids),
        ),
        priority=Priority.INTERACTIVE if _is_waiting(conversation) else Priority.BATCH,
        prompt_ids=prompt_ids,
        follow_up_task=AFTER_PIECE_TASK,
        timeout_secs=settings.REQUEST_TIMEOUT_SECS,
        cache_tags=[conversation.cache_tag],
        details={"summary": request.details()},
        # The answer was admitted; work that follows from it is not refused for a full queue.
        capped=False,
    )


def raise_priority(conversation: Conversation) -> None:
    """Let the piece that a conversation waits for be read beside answers: turns were left out without a summary."""
    ids = conversation.summaries.making().generation_ids()
    generations.raise_priority(generation_ids=ids)


def _is_waiting(conversation: Conversation) -> bool:
    """Tell whether the latest prompt left out messages that no summary covers."""
    answers = conversation.messages.filter(generation__isnull=False).order_by("-position")
    n_left_out = answers.values_list("generation__details__history__messages_left_out", flat=True).first()
    return bool(n_left_out)


def _advance(summary: Summary, generation: Generation) -> bool:
    """Store the result of a piece; True when it completes the summary."""
    # Rows of an earlier version have no ``n_rejected``.
    text, details = generation.text.strip(), {"n_rejected": 0} | generation.details["summary"]
    if generation.status != Status.COMPLETE:
        reason = generation.error_code or f"the generation is {generation.status}"
        _settle(summary, generation, state=SummaryState.FAILED, error=reason)
        return False
    builder = PromptBuilder(system_prompt="", max_tokens=details["max_tokens"], strategy=Strategy.SUMMARIZE)
    summarizer = Summarizer.of(builder.budget)
    previous = summary.conversation.summaries.made().filter(version__lt=summary.version).first()
    start = previous.covers_until + 1 if previous else 0
    pieces = summarizer.pieces(_texts(summary.conversation, start, summary.covers_until + 1))
    piece, so_far = details["piece"], summary.text or (previous.text if previous else "")
    problem = problem_of(text, f"{so_far}\n{pieces[piece]}", statements(pieces, piece, so_far))
    note = summary.note
    if problem and details["n_rejected"] < MAX_REJECTED:
        request = PieceRequest(
            summarizer=summarizer,
            prompt_ids=summarizer.prompt(pieces[piece], so_far, is_list=True),
            max_tokens=details["max_tokens"],
            piece=piece,
            n_rejected=details["n_rejected"] + 1,
        )
        _settle(summary, generation, request)
        return False
    if problem:
        limit = summarizer.budget.summary_limit
        text = extract(pieces, piece, so_far, limit=limit, count=summarizer.count) or so_far
        note = f"piece {piece + 1} of {len(pieces)} is an extract: the text of the model was refused, {problem}"
    if not text:
        _settle(summary, generation, state=SummaryState.FAILED, error=f"the summary was refused: {problem}")
        return False
    if piece + 1 == len(pieces):
        n_tokens, now = summarizer.count(text), timezone.now()
        return _settle(
            summary, generation, state=SummaryState.MADE, text=text, note=note, n_tokens=n_tokens, made_at=now
        )
    request = PieceRequest(
        summarizer=summarizer,
        prompt_ids=summarizer.prompt(pieces[piece + 1], text),
        max_tokens=details["max_tokens"],
        piece=piece + 1,
    )
    _settle(summary, generation, request, text=text, note=note)
    return False


def _settle(summary: Summary, generation: Generation, request: PieceRequest | None = None, **columns: object) -> bool:
    """Store a step once, with the next piece if there is one; False if another process stored it."""
    with transaction.atomic():
        if not generations.claim_follow_up(generation_id=generation.pk):
            return False
        if request:
            columns["generation"] = _create_piece(summary.conversation, request)
        Summary.objects.making().filter(pk=summary.pk).update(**columns)
        if request:
            # Its text is in the summary; without the summary's reference it would outlive the conversation.
            generations.delete(generation_ids=[generation.pk])
        if columns.get("state") == SummaryState.MADE:
            Conversation.objects.filter(pk=summary.conversation_id).update(summary=columns["text"])
    if columns.get("state") == SummaryState.FAILED:
        log.warning("summary failed conversation=%s error=%s", summary.conversation_id, columns["error"])
    return True


def _texts(conversation: Conversation, start: int, end: int) -> list[tuple[Role, str]]:
    """Return roles and texts of the positions from ``start`` to before ``end``."""
    messages = conversation.messages.in_order().filter(position__gte=start, position__lt=end)
    return [(Role(message.role), message.shown) for message in messages]
