"""Group the messages of a dialogue into exchanges, and write what they are rendered to back to their rows.

rows -> dialogue (with the sources shown) -> groups: user messages in a row and the answer to them
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from chat.models import Message, Role
from chat.prompting.context_window import Exchange, RenderedTurn
from chat.prompting.system_prompt import user_turn
from chat.rag.sources import Source
from inference.models import Status
from inference.token_ids import pack, unpack


@dataclass(frozen=True)
class DialogueMessage:
    """A message as the prompt shows it. ``message`` is its row, stored or not yet; None: it will have none."""

    role: Role
    text: str
    message: Message | None = None
    sources: tuple[Source, ...] = ()  # shown before a user message
    thought: str = ""  # before an answer


@dataclass(frozen=True, kw_only=True)
class MessageGroup:
    """User messages in a row and their answer. An answer that was stopped before its first word counts as none."""

    users: tuple[DialogueMessage, ...]
    answer: DialogueMessage | None
    n_messages: int
    exchange: Exchange

    @property
    def transcript(self) -> list[tuple[Role, str]]:
        """Roles and texts, without sources."""
        return [(message.role, message.text) for message in (*self.users, *filter(None, [self.answer]))]

    @classmethod
    def of_run(cls, run: Sequence[DialogueMessage]) -> "MessageGroup":
        """Join the user messages of ``run`` and the answers to them."""
        users = tuple(message for message in run if message.role == Role.USER)
        answers = [message for message in run if _is_answer(message)]
        answer = answers[0] if len(answers) == 1 else None
        if len(answers) > 1:  # only a sent history has two answers in a row
            answer = DialogueMessage(
                Role.ASSISTANT,
                "\n\n".join(message.text for message in answers),
                thought="\n\n".join(message.thought for message in answers if message.thought),
            )
        exchange = Exchange(
            user="\n\n".join(user_turn(user.text, user.sources) for user in users),
            answer=answer.text if answer else "",
            thought=answer.thought if answer else "",
            user_rendered=_rendered(users[-1].message) if users else RenderedTurn(),
            answer_rendered=_rendered(answer.message) if answer else RenderedTurn(),
            n_messages=len(run),
        )
        return cls(users=users, answer=answer, n_messages=len(run), exchange=exchange)


def dialogue_of(messages: Sequence[Message]) -> list[DialogueMessage]:
    """Convert rows, in their order; a user message gets the sources that its answer was given."""
    following = [*messages[1:], None] if messages else []
    return [
        DialogueMessage(
            Role(message.role),
            message.shown,
            message,
            thought=message.thought,
            sources=_sources_of(after) if message.role == Role.USER else (),
        )
        for message, after in zip(messages, following, strict=True)
    ]


def group_messages(dialogue: Sequence[DialogueMessage], sources: tuple[Source, ...] = ()) -> list[MessageGroup]:
    """Group a dialogue that ends with a user message, which gets the ``sources``; the last group has no answer."""
    if sources:
        last = max(index for index, message in enumerate(dialogue) if message.role == Role.USER)
        dialogue = [*dialogue[:last], replace(dialogue[last], sources=sources), *dialogue[last + 1 :]]
    runs: list[list[DialogueMessage]] = [[]]
    is_answered = False
    for message in dialogue:
        if message.role == Role.USER and is_answered:
            runs.append([])
            is_answered = False
        runs[-1].append(message)
        is_answered = is_answered or _is_answer(message)
    return [MessageGroup.of_run(run) for run in runs]


def update_renderings(groups: Sequence[MessageGroup], exchanges: Sequence[Exchange]) -> list[Message]:
    """Set the rendered tokens of ``exchanges`` on the message rows; return the rows that changed, unsaved."""
    changed: list[Message] = []
    for group, exchange in zip(groups, exchanges, strict=True):
        *earlier, last = [user.message for user in group.users] or [None]
        # The last of several user messages carries the rendering of all of them.
        turns = [(message, RenderedTurn()) for message in earlier] + [(last, exchange.user_rendered)]
        # A blank answer keeps the model's own tokens: under another format there are none to keep.
        if group.answer and exchange.answer_rendered.ids:
            turns.append((group.answer.message, exchange.answer_rendered))
        for message, rendered in turns:
            is_beginning = bool(rendered.ids) and not rendered.key  # of a text longer than the context
            if message is None or is_beginning or rendered == _rendered(message):
                continue
            message.rendered, message.rendered_with = pack(rendered.ids), rendered.key
            changed.append(message)
    return changed


def _is_answer(message: DialogueMessage) -> bool:
    """An answer of white space alone counts if the model ended it: its tokens are in the KV cache."""
    if message.role == Role.USER:
        return False
    generation = message.message.generation if message.message else None
    is_complete = generation is not None and generation.status == Status.COMPLETE and bool(generation.output_ids)
    return bool(message.text.strip()) or is_complete


def _rendered(message: Message | None) -> RenderedTurn:
    """Return the stored rendering; of an answer without one the tokens that the model sampled."""
    if message is None:
        return RenderedTurn()
    ids = unpack(message.rendered)
    if message.role != Role.ASSISTANT:
        return RenderedTurn(tuple(ids), message.rendered_with)
    if message.generation and not ids:
        ids = message.generation.output_ids
    return RenderedTurn(tuple(ids), message.rendered_with) if ids else RenderedTurn()


def _sources_of(answer: Message | None) -> tuple[Source, ...]:
    # The copies of a fork carry their retrieval; for other unsaved rows each access would be a query.
    if answer is None or (answer._state.adding and "retrieval" not in answer._state.fields_cache):
        return ()
    retrieval = getattr(answer, "retrieval", None)
    return tuple(Source.from_wire(wire) for wire in retrieval.sources) if retrieval else ()
