"""Finds the stored conversation that a sent history is the beginning of a new turn to.

Clients without conversation ids send everything again with each message. A cumulative digest over the system
prompt and the user messages finds candidates; the texts of the answers decide.
"""

import hashlib
from collections.abc import Sequence

from chat.dialogue import Said
from chat.models import Conversation, Message, Role

# Conversations that begin alike (the same question asked again and again) are compared from the newest.
MAX_CANDIDATES = 20


def digests(system: str, user_texts: Sequence[str], *, after: str | None = None) -> list[str]:
    """The cumulative digest at each user message, going on from the digest ``after``."""
    last = after if after is not None else _digest(system)
    found: list[str] = []
    for text in user_texts:
        last = _digest(f"{last}\n{text}")
        found.append(last)
    return found


def find_continued(*, owner: str, system: str, earlier: Sequence[Said]) -> Conversation | None:
    """The owner's latest conversation that consists of exactly these messages, all answers finished."""
    user_texts = [said.text for said in earlier if said.role == Role.USER]
    if not user_texts:
        return None
    wanted = Message.objects.filter(history_digest=digests(system, user_texts)[-1], conversation__owner=owner)
    ids = wanted.order_by("-conversation__updated_at").values_list("conversation_id", flat=True)[:MAX_CANDIDATES]
    # Many may begin alike; the digest leaves few, and the newest is the one that the client has before it.
    for conversation in Conversation.objects.filter(pk__in=list(ids), system_prompt=system).order_by("-updated_at"):
        messages = list(conversation.messages.in_order())
        finished = all(message.generation is None or message.generation.is_ended for message in messages)
        if finished and _essence([(Role(m.role), m.text) for m in messages]) == _essence(
            [(said.role, said.text) for said in earlier]
        ):
            return conversation
    return None


def _essence(messages: Sequence[tuple[Role, str]]) -> list[tuple[Role, str]]:
    """What has to be equal: user texts as they are, answers without surrounding space, no empty answers."""
    stripped = [(role, text if role == Role.USER else text.strip()) for role, text in messages]
    return [(role, text) for role, text in stripped if role == Role.USER or text]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
