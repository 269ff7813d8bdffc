"""Generations and tokens as the tests of this room need them."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.utils import timezone

from inference import services
from inference.engine.params import SamplingParams, SequenceParams
from inference.models import Generation, Priority
from inference.token_log_entries import Token

PARAMS = SequenceParams(sampling=SamplingParams(seed=7, temperature=0.0))


def queued(
    owner: str = "user:1", *, prompt: Sequence[int] = (1, 2, 3), waited_secs: float = 0.0, **more: Any
) -> Generation:
    """A stored, queued generation that has been waiting for ``waited_secs``."""
    arguments: dict[str, Any] = {"params": PARAMS, "timeout_secs": 60.0, "priority": Priority.INTERACTIVE, **more}
    generation = services.create(owner=owner, prompt_ids=prompt, capped=False, **arguments)
    if waited_secs:
        queued_at = timezone.now() - timedelta(seconds=waited_secs)
        Generation.objects.filter(pk=generation.pk).update(queued_at=queued_at)
        generation.refresh_from_db()
    return generation


def preparing(owner: str = "user:1", **more: Any) -> Generation:
    arguments: dict[str, Any] = {"params": PARAMS, "timeout_secs": 60.0, "prepare_task": "chat.prepare", **more}
    return services.create(owner=owner, prompt_ids=None, capped=False, **arguments)


def tokens(text: str, *, first: int = 1, device: str = "cpu") -> list[Token]:
    """One token per character, its id the character's number."""
    return [
        Token(index=index, token=ord(char), text=char, device=device) for index, char in enumerate(text, start=first)
    ]
