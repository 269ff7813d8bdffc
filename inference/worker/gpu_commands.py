"""Telling the worker where the model should be: from a web process, over Redis, to the placement.

A command that nobody hears is lost; whoever sent it looks at the worker's report for what came of it.
"""

from typing import Protocol

import msgspec

from inference.errors import StoreUnavailable
from inference.runtime.redis_client import AWAY, shared_client

CARD_CHANNEL = "gemma:card"


class HoldCard(msgspec.Struct, frozen=True, tag="hold"):
    """Bring the model to the card and keep it there for the session."""

    session_id: str
    secs: float


class ReleaseSession(msgspec.Struct, frozen=True, tag="release_session"):
    """The session no longer keeps the card; an empty one means all."""

    session_id: str


class YieldCard(msgspec.Struct, frozen=True, tag="yield"):
    """Leave the card now."""

    reason: str


CardCommand = HoldCard | ReleaseSession | YieldCard


class CardHolder(Protocol):
    """What a placement does with them; returns at once, in any thread."""

    def hold(self, session_id: str, secs: float) -> None: ...

    def release_session(self, session_id: str) -> None: ...

    def yield_card(self, reason: str) -> None: ...


def send(command: CardCommand) -> bool:
    """False: no worker listens. Raises StoreUnavailable."""
    try:
        return shared_client().publish(CARD_CHANNEL, msgspec.json.encode(command)) > 0
    except AWAY as error:
        raise StoreUnavailable(str(error)) from error


def obey(holder: CardHolder, data: bytes) -> None:
    """Raises msgspec.DecodeError for what is no command."""
    match msgspec.json.decode(data, type=CardCommand):
        case HoldCard(session_id, secs):
            holder.hold(session_id, secs)
        case ReleaseSession(session_id):
            holder.release_session(session_id)
        case YieldCard(reason):
            holder.yield_card(reason)
