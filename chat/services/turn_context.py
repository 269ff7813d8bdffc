"""What a turn stands on: the conversation that it continues, branches off from or begins, and what was said before it.

Nothing is stored here, and nothing rendered.
"""

import uuid
from dataclasses import dataclass, replace

from chat.access.callers import Caller
from chat.enums import Strategy
from chat.errors import ConversationBusy, InvalidRequest, NotFound
from chat.models import Conversation, Message, Role
from chat.prompting.context_window import HistorySummary
from chat.prompting.message_groups import DialogueMessage
from chat.schemas.requests import ChatRequest
from chat.services.forking import Fork, fork_conversation
from chat.services.history_matching import find_continued_conversation, find_shared_history
from chat.services.validation import ValidatedRequest
from chat.summarization.rolling import history_summary, history_summary_of


@dataclass(frozen=True, kw_only=True)
class TurnContext:
    """``before``: the conversation's messages, stored ones or a branch's copies. ``unsaid``: what comes after them, the
    question last. ``conversation`` is None where nothing is kept. ``condensed``: of a long question asked again."""

    asked: ValidatedRequest
    before: list[Message]
    incoming: list[DialogueMessage]
    conversation: Conversation | None
    fork: Fork | None = None
    condensed: str = ""

    @property
    def system(self) -> str:
        return self.conversation.system_prompt if self.conversation else self.asked.system

    def history_summary(self, strategy: Strategy) -> HistorySummary:
        """What the summary has of ``before``."""
        if self.fork:
            return history_summary_of(self.fork.summary, strategy)
        return history_summary(self.conversation, strategy)


def load_context(*, caller: Caller, request: ChatRequest, asked: ValidatedRequest, may_continue: bool) -> TurnContext:
    """Raises NotFound, ConversationBusy, InvalidRequest. Without ``may_continue`` a sent history begins anew."""
    if request.conversation_id:
        conversation = _own(caller, request.conversation_id)
        messages = list(conversation.messages.in_order())
        if request.replaces:
            return _instead(request, asked, conversation, messages)
        if not all(map(_is_ended, messages)):
            raise ConversationBusy("the last answer of this conversation is not finished")
        return _going_on(asked, conversation, messages)
    if request.store and may_continue:
        return _of_sent_history(caller, asked)
    return _new(caller, asked, is_kept=request.store)


def _own(caller: Caller, conversation_id: uuid.UUID) -> Conversation:
    found = Conversation.objects.of(caller.key).filter(pk=conversation_id).first()
    if found is None:
        raise NotFound("there is no such conversation", field="conversation_id")
    return found


def _going_on(asked: ValidatedRequest, conversation: Conversation, messages: list[Message]) -> TurnContext:
    incoming = [DialogueMessage(Role.USER, asked.user)]
    return TurnContext(asked=asked, before=messages, incoming=incoming, conversation=conversation)


def _of_sent_history(caller: Caller, asked: ValidatedRequest) -> TurnContext:
    """Exactly a stored conversation, or the way that one has taken up to some point, or something new."""
    same = find_continued_conversation(owner=caller.key, system=asked.system, earlier=asked.earlier)
    if same:
        return _going_on(asked, same, list(same.messages.in_order()))
    found = find_shared_history(owner=caller.key, system=asked.system, earlier=asked.earlier)
    if found is None:
        return _new(caller, asked, is_kept=True)
    fork = fork_conversation(found.conversation, found.shared)
    incoming = [*asked.earlier[found.n_sent :], DialogueMessage(Role.USER, asked.user)]
    return TurnContext(asked=asked, before=fork.messages, incoming=incoming, conversation=fork.conversation, fork=fork)


def _new(caller: Caller, asked: ValidatedRequest, *, is_kept: bool) -> TurnContext:
    conversation = Conversation(owner=caller.key, system_prompt=asked.system) if is_kept else None
    incoming = [*asked.earlier, DialogueMessage(Role.USER, asked.user)]
    return TurnContext(asked=asked, before=[], incoming=incoming, conversation=conversation)


def _instead(
    request: ChatRequest, asked: ValidatedRequest, conversation: Conversation, messages: list[Message]
) -> TurnContext:
    """Another question, or the same one again, in the place of one that was asked."""
    question = _question_at(request, messages)
    shared = [message for message in messages if message.position < question.position]
    if not all(map(_is_ended, shared)):
        raise ConversationBusy("an answer before this question is not finished")
    fork = fork_conversation(conversation, shared)
    is_same = not asked.user or asked.user == question.content
    asked = replace(
        asked,
        user=question.content if is_same else asked.user,
        earlier=tuple(DialogueMessage(Role(message.role), message.shown) for message in shared),
        system=conversation.system_prompt,
    )
    return TurnContext(
        asked=asked,
        before=fork.messages,
        incoming=[DialogueMessage(Role.USER, asked.user)],
        conversation=fork.conversation,
        fork=fork,
        condensed=question.condensed if is_same else "",
    )


def _question_at(request: ChatRequest, messages: list[Message]) -> Message:
    """The user's message with the id that the request names, or the last one before the answer with it."""
    named = next((message for message in messages if message.pk == request.replaces), None)
    if named is None:
        raise NotFound("the conversation has no such message", field="replaces")
    questions = [each for each in messages if each.role == Role.USER and each.position <= named.position]
    if not questions:
        raise InvalidRequest("nothing was asked before this answer", field="replaces")
    return questions[-1]


def _is_ended(message: Message) -> bool:
    return message.generation is None or message.generation.is_ended
