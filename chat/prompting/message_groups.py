"""A conversation on its way into a prompt: who said what, grouped into exchanges, and back into message rows.

Knows rows and exchanges; how an exchange becomes tokens is ``history``'s business.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from chat.models import Message, Role
from chat.prompting.context_window import Exchange, Rendered
from chat.prompting.system_prompt import user_turn
from chat.rag.sources import Source
from compat.django_http import is_loaded
from inference.models import Status
from inference.token_ids import pack, unpack


@dataclass(frozen=True)
class DialogueMessage:
    """One message, stored (or to be) as ``message``, or only passing through."""

    role: Role
    text: str
    message: Message | None = None
    sources: tuple[Source, ...] = ()  # shown before a user's message


@dataclass
class MessageGroup:
    """What the user said in a row, and the answer to it. What the model was stopped from saying counts as none."""

    users: list[DialogueMessage] = field(default_factory=list)
    answer: DialogueMessage | None = None
    n_messages: int = 0

    def as_exchange(self) -> Exchange:
        return Exchange(
            user="\n\n".join(user_turn(said.text, said.sources) for said in self.users),
            answer=self.answer.text if self.answer else "",
            user_rendered=_user_rendered(self.users[-1].message) if self.users else Rendered(),
            answer_rendered=_answer_rendered(self.answer.message) if self.answer else Rendered(),
            n_messages=self.n_messages,
        )


def dialogue_of(messages: Sequence[Message]) -> list[DialogueMessage]:
    """Stored messages, in order; a user's get the sources that the answer after them was given."""
    following = [*messages[1:], None] if messages else []
    return [
        DialogueMessage(
            Role(message.role), message.shown, message, _sources_of(after) if message.role == Role.USER else ()
        )
        for message, after in zip(messages, following, strict=True)
    ]


def group_messages(said: Iterable[DialogueMessage]) -> list[MessageGroup]:
    """Exchanges; what was said ends with a user's message, so the last one has no answer yet."""
    groups = [MessageGroup()]
    for each in said:
        if each.role == Role.USER and groups[-1].answer:
            groups.append(MessageGroup())
        group = groups[-1]
        group.n_messages += 1
        if each.role == Role.USER:
            group.users.append(each)
        elif each.text.strip() or _is_blank_answer(each.message):
            group.answer = _joined(group.answer, each)
    return groups


def with_sources(said: Sequence[DialogueMessage], sources: tuple[Source, ...]) -> list[DialogueMessage]:
    """The same with ``sources`` put before the last user message."""
    last = max(index for index, each in enumerate(said) if each.role == Role.USER)
    return [*said[:last], replace(said[last], sources=sources), *said[last + 1 :]]


def update_renderings(groups: Sequence[MessageGroup], exchanges: Sequence[Exchange]) -> list[Message]:
    """Put onto the message rows what they are rendered to now; returns those that changed, unsaved."""
    changed: list[Message] = []
    for group, exchange in zip(groups, exchanges, strict=True):
        *earlier, last = [said.message for said in group.users] or [None]
        # Only the last of several user messages carries the rendering, which is of all of them.
        now = [(message, Rendered()) for message in earlier] + [(last, exchange.user_rendered)]
        # A blank answer keeps the model's own tokens: under another format there is nothing to keep.
        if group.answer and exchange.answer_rendered.ids:
            now.append((group.answer.message, exchange.answer_rendered))
        changed += [message for message, rendered in now if message and _set_rendered(message, rendered)]
    return changed


def _is_blank_answer(message: Message | None) -> bool:
    """White space alone, said to the end: the model's memory holds its tokens, so the next prompt has them too."""
    generation = message.generation if message else None
    return generation is not None and generation.status == Status.COMPLETE and bool(generation.output_ids)


def _joined(first: DialogueMessage | None, second: DialogueMessage) -> DialogueMessage:
    """Two answers in a row, as only a sent history has them, are one for the prompt."""
    return second if first is None else DialogueMessage(Role.ASSISTANT, f"{first.text}\n\n{second.text}")


def _set_rendered(message: Message, rendered: Rendered) -> bool:
    before = _answer_rendered(message) if message.role == Role.ASSISTANT else _user_rendered(message)
    if rendered == before:
        return False
    message.rendered, message.rendered_with = pack(rendered.ids), rendered.key
    return True


def _user_rendered(message: Message | None) -> Rendered:
    return Rendered(tuple(unpack(message.rendered)), message.rendered_with) if message else Rendered()


def _answer_rendered(message: Message | None) -> Rendered:
    """Ids kept for an answer: its own rendering, or the very tokens that the model gave."""
    if message is None:
        return Rendered()
    own = unpack(message.rendered)
    output = message.generation.output_ids if message.generation and not own else own
    return Rendered(tuple(output), message.rendered_with) if output else Rendered()


def _sources_of(answer: Message | None) -> tuple[Source, ...]:
    # What is not stored yet has what it was given, and asking the database for more would be a query for each.
    if answer is None or (answer._state.adding and not is_loaded(answer, "retrieval")):
        return ()
    retrieval = getattr(answer, "retrieval", None)
    return tuple(Source.from_wire(wire) for wire in retrieval.sources) if retrieval else ()
