"""Step 2 of a turn: load the conversation that it continues, forks or begins, and the messages before the question.

Stores nothing and renders nothing.
"""

import unicodedata
from dataclasses import dataclass, field

from chat.enums import Strategy, TitleSource
from chat.errors import ConversationBusy, InvalidRequest, NotFound
from chat.models import Conversation, Message, Role
from chat.prompting.context_window import HistorySummary
from chat.prompting.message_groups import DialogueMessage, dialogue_of
from chat.prompting.system_prompt import with_instructions
from chat.services.forking import Fork, fork_conversation
from chat.services.history_matching import cumulative_digests, match_history
from chat.services.item_facts import check_outputs
from chat.services.validation import ValidatedRequest
from chat.summarization.rolling import history_summary, history_summary_of
from chat.summarization.titles import makes_titles

MAX_TITLE_CHARS = 80


@dataclass(frozen=True, kw_only=True)
class _Origin:
    """The conversation of a turn, and its messages.

    ``stored`` are rows of the conversation, or a fork's unsaved copies; ``incoming`` follow them, the question last.
    ``condensed`` holds the notes about a long question that is repeated.
    """

    stored: list[Message] = field(default_factory=list)
    incoming: list[DialogueMessage]
    conversation: Conversation | None
    fork: Fork | None = None
    condensed: str = ""


@dataclass(frozen=True, kw_only=True)
class TurnContext:
    """A validated request with the rows that it refers to.

    ``dialogue`` is everything the prompt may hold, the question last; ``stored`` are the rows of its first messages,
    ``new_messages`` the unsaved rows of the others. ``conversation`` is None, and ``new_messages`` is empty, where
    nothing is stored.
    """

    validated: ValidatedRequest
    conversation: Conversation | None
    fork: Fork | None
    stored: list[Message]
    new_messages: list[Message]
    dialogue: list[DialogueMessage]
    # Messages of a turn that is not stored, which no row holds.
    transient: list[DialogueMessage]
    question: str
    system_prompt: str
    strategy: Strategy
    recalls: bool  # messages that the prompt does not hold are searched
    summary: HistorySummary

    @property
    def conversation_read(self) -> Conversation | None:
        """The stored conversation whose messages a turn reads that is not stored itself."""
        return self.fork.source if self.fork else self.conversation

    @property
    def cache_tags(self) -> list[str]:
        """The tag of the conversation whose tokens the prompt contains. An unstored fork has those of its source."""
        owner = self.conversation if self.validated.request.store else self.conversation_read
        return [owner.cache_tag] if owner else []


def load_context(validated: ValidatedRequest, *, may_continue: bool = True) -> TurnContext:
    """Return the conversation and the history of a request; without ``may_continue`` a sent history begins a new one.

    Raises NotFound, ConversationBusy and InvalidRequest.
    """
    request = validated.request
    origin = _find_origin(validated, may_continue=may_continue)
    conversation = origin.conversation
    new_messages: list[Message] = []
    if conversation and request.store:
        new_messages = _new_messages(conversation, origin, may_have_title=request.auto_title and makes_titles())
    dialogue = dialogue_of([*origin.stored, *new_messages])
    transient: list[DialogueMessage] = []
    if not request.store:
        # A fork that is not stored exists in this request alone, so its history goes along.
        transient = [*(dialogue if origin.fork else ()), *origin.incoming]
        dialogue += origin.incoming
    strategy = request.strategy or Strategy(conversation.strategy if conversation else Strategy.SUMMARIZE)
    is_recalling = request.recall if request.recall is not None else conversation is None or conversation.recall
    if origin.fork:
        summary = history_summary_of(origin.fork.summary, strategy)
    else:
        summary = history_summary(conversation, strategy)
    return TurnContext(
        validated=validated,
        conversation=conversation,
        fork=origin.fork,
        stored=origin.stored,
        new_messages=new_messages,
        dialogue=dialogue,
        transient=transient,
        question=origin.incoming[-1].text,
        system_prompt=with_instructions(
            request.instructions, conversation.system_prompt if conversation else validated.system_prompt
        ),
        strategy=strategy,
        recalls=is_recalling and strategy is Strategy.SUMMARIZE,
        summary=summary,
    )


def _find_origin(validated: ValidatedRequest, *, may_continue: bool) -> _Origin:
    request = validated.request
    incoming = [*validated.history, DialogueMessage(Role.USER, validated.question)]
    if request.follows:
        return _after_answer(validated, incoming)
    if request.conversation_id:
        conversation = Conversation.objects.of(validated.caller.key).filter(pk=request.conversation_id).first()
        if conversation is None:
            raise NotFound("there is no such conversation", field="conversation_id")
        messages = list(conversation.messages.in_order())
        if request.replaces:
            return _before_question(validated, conversation, messages)
        # A question after an unfinished answer would be computed without it.
        if not all(map(_is_ended, messages)):
            raise ConversationBusy("the last answer of this conversation is not finished")
        check_outputs(request.outputs, messages)
        return _Origin(stored=messages, incoming=incoming, conversation=conversation)
    if not request.store:
        # The request's own history is the whole context; no stored conversation is continued.
        return _Origin(incoming=incoming, conversation=None)
    owner, system_prompt = validated.caller.key, validated.system_prompt
    match = match_history(owner=owner, system=system_prompt, history=validated.history) if may_continue else None
    if match is None:
        return _Origin(incoming=incoming, conversation=Conversation(owner=owner, system_prompt=system_prompt))
    if match.is_whole:
        return _Origin(stored=match.messages, incoming=incoming[-1:], conversation=match.conversation)
    fork = fork_conversation(match.conversation, match.messages)
    return _Origin(stored=fork.messages, incoming=incoming[match.n_sent :], conversation=fork.conversation, fork=fork)


def _after_answer(validated: ValidatedRequest, incoming: list[DialogueMessage]) -> _Origin:
    """Return the conversation of the answer that ``follows`` names, or a fork when other messages came after it."""
    rows = Message.objects.filter(conversation__owner=validated.caller.key, generation=validated.request.follows)
    answer = rows.select_related("conversation").first()
    if answer is None:
        raise NotFound("there is no such response", field="follows")
    messages = list(answer.conversation.messages.in_order())
    shared = [message for message in messages if message.position <= answer.position]
    if not all(map(_is_ended, shared)):
        raise ConversationBusy("the previous response is not finished", field="follows")
    check_outputs(validated.request.outputs, shared)
    if len(shared) == len(messages):  # no message came after it
        return _Origin(stored=messages, incoming=incoming, conversation=answer.conversation)
    fork = fork_conversation(answer.conversation, shared)
    return _Origin(stored=fork.messages, incoming=incoming, conversation=fork.conversation, fork=fork)


def _before_question(validated: ValidatedRequest, conversation: Conversation, messages: list[Message]) -> _Origin:
    """Return a fork that ends before the question that ``replaces`` names, with a new question or the same again."""
    target = next((message for message in messages if message.pk == validated.request.replaces), None)
    if target is None:
        raise NotFound("the conversation has no such message", field="replaces")
    questions = [row for row in messages if row.role == Role.USER and row.position <= target.position]
    if not questions:
        raise InvalidRequest("there is no question before this answer", field="replaces")
    question = questions[-1]
    shared = [message for message in messages if message.position < question.position]
    if not all(map(_is_ended, shared)):
        raise ConversationBusy("an answer before this question is not finished")
    fork = fork_conversation(conversation, shared)
    # Regenerated: a long question keeps the notes that were made of it, which cost as many generations as it has parts.
    is_repeated = validated.question in ("", question.content)
    text = question.content if is_repeated else validated.question
    return _Origin(
        stored=fork.messages,
        incoming=[DialogueMessage(Role.USER, text)],
        conversation=fork.conversation,
        fork=fork,
        condensed=question.condensed if is_repeated else "",
    )


def _is_ended(message: Message) -> bool:
    return message.generation is None or message.generation.is_ended


def _new_messages(conversation: Conversation, origin: _Origin, *, may_have_title: bool) -> list[Message]:
    """Return unsaved rows of the incoming messages with their digests; a new conversation gets its title, which the
    model may replace later with ``may_have_title``."""
    if not origin.stored and not conversation.title:
        conversation.title = title_of(origin.incoming)
        if may_have_title:
            conversation.title_source = TitleSource.AWAITED.value
    last_user = max((index for index, row in enumerate(origin.stored) if row.role == Role.USER), default=None)
    last_digest = None if last_user is None else origin.stored[last_user].history_digest
    answers = origin.stored if last_user is None else origin.stored[last_user + 1 :]
    dialogue = [*((Role(row.role), row.text) for row in answers), *((row.role, row.text) for row in origin.incoming)]
    new_digests = cumulative_digests(conversation.owner, conversation.system_prompt, dialogue, after=last_digest)
    first_position = origin.stored[-1].position + 1 if origin.stored else 0
    rows = [
        Message(
            conversation=conversation,
            position=position,
            role=message.role,
            content=message.text,
            content_thought=message.thought,
            history_digest=history_digest,
        )
        for position, (message, history_digest) in enumerate(
            zip(origin.incoming, new_digests[len(answers) :], strict=True), first_position
        )
    ]
    rows[-1].condensed = origin.condensed  # the last one is the question
    return rows


def title_of(dialogue: list[DialogueMessage]) -> str:
    """Return the beginning of the first user message on one line, cut between words."""
    first = next(message.text for message in dialogue if message.role == Role.USER)
    # Titles are printed in lists and terminals: no control characters.
    text = " ".join("".join(" " if unicodedata.category(ch) == "Cc" else ch for ch in first[:1000]).split())
    if len(text) <= MAX_TITLE_CHARS:
        return text
    cut = text[:MAX_TITLE_CHARS]
    return (cut.rpartition(" ")[0] if " " in cut[MAX_TITLE_CHARS // 2 :] else cut).rstrip(" ,;:") + " …"
