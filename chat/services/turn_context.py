"""What a turn stands on: the conversation that it continues, branches off from or begins, and what was said before it.

Nothing is stored here, and nothing rendered.
"""

import uuid
from dataclasses import dataclass, replace

from chat.access.callers import Caller
from chat.enums import Strategy
from chat.errors import ConversationBusy, InvalidRequest, NotFound
from chat.models import Conversation, Message, Role
from chat.prompting.context_window import Remembered
from chat.prompting.message_groups import Said
from chat.schemas.requests import ChatRequest
from chat.services.forking import Branch, branch_off
from chat.services.history_matching import find_branched, find_continued
from chat.services.validation import Asked
from chat.summarization.rolling import remembered, remembered_by


@dataclass(frozen=True, kw_only=True)
class Ground:
    """``before``: the conversation's messages, stored ones or a branch's copies. ``unsaid``: what comes after them, the
    question last. ``conversation`` is None where nothing is kept. ``condensed``: of a long question asked again."""

    asked: Asked
    before: list[Message]
    unsaid: list[Said]
    conversation: Conversation | None
    branch: Branch | None = None
    condensed: str = ""

    @property
    def system(self) -> str:
        return self.conversation.system_prompt if self.conversation else self.asked.system

    def remembered(self, strategy: Strategy) -> Remembered:
        """What the summary has of ``before``."""
        if self.branch:
            return remembered_by(self.branch.summary, strategy)
        return remembered(self.conversation, strategy)


def find_ground(*, caller: Caller, request: ChatRequest, asked: Asked, may_continue: bool) -> Ground:
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


def _going_on(asked: Asked, conversation: Conversation, messages: list[Message]) -> Ground:
    unsaid = [Said(Role.USER, asked.user)]
    return Ground(asked=asked, before=messages, unsaid=unsaid, conversation=conversation)


def _of_sent_history(caller: Caller, asked: Asked) -> Ground:
    """Exactly a stored conversation, or the way that one has taken up to some point, or something new."""
    same = find_continued(owner=caller.key, system=asked.system, earlier=asked.earlier)
    if same:
        return _going_on(asked, same, list(same.messages.in_order()))
    found = find_branched(owner=caller.key, system=asked.system, earlier=asked.earlier)
    if found is None:
        return _new(caller, asked, is_kept=True)
    branch = branch_off(found.conversation, found.shared)
    unsaid = [*asked.earlier[found.n_sent :], Said(Role.USER, asked.user)]
    return Ground(asked=asked, before=branch.messages, unsaid=unsaid, conversation=branch.conversation, branch=branch)


def _new(caller: Caller, asked: Asked, *, is_kept: bool) -> Ground:
    conversation = Conversation(owner=caller.key, system_prompt=asked.system) if is_kept else None
    unsaid = [*asked.earlier, Said(Role.USER, asked.user)]
    return Ground(asked=asked, before=[], unsaid=unsaid, conversation=conversation)


def _instead(request: ChatRequest, asked: Asked, conversation: Conversation, messages: list[Message]) -> Ground:
    """Another question, or the same one again, in the place of one that was asked."""
    question = _question_at(request, messages)
    shared = [message for message in messages if message.position < question.position]
    if not all(map(_is_ended, shared)):
        raise ConversationBusy("an answer before this question is not finished")
    branch = branch_off(conversation, shared)
    is_same = not asked.user or asked.user == question.content
    asked = replace(
        asked,
        user=question.content if is_same else asked.user,
        earlier=tuple(Said(Role(message.role), message.shown) for message in shared),
        system=conversation.system_prompt,
    )
    return Ground(
        asked=asked,
        before=branch.messages,
        unsaid=[Said(Role.USER, asked.user)],
        conversation=branch.conversation,
        branch=branch,
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
