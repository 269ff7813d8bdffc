"""What a client gets to see of a generation: bodies of the wire format."""

from typing import Any

from chat.models import Message
from inference.models import Generation


def answer(generation: Generation) -> dict[str, Any]:
    """The body of POST /chat for an ended generation."""
    raise NotImplementedError


def final_line(generation: Generation) -> dict[str, Any]:
    """What the last line of a stream has besides ``token`` and ``done``; with ``error`` if it failed."""
    raise NotImplementedError


def message_body(message: Message) -> dict[str, Any]:
    """One entry of /api/conversations/{id}/messages/."""
    raise NotImplementedError


def completion(generation: Generation) -> dict[str, Any]:
    """The body of POST /generate."""
    raise NotImplementedError
