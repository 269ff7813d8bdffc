"""Generations and tokens as the tests of this room need them."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from django.utils import timezone

from inference.config.tokenizer import get_tokenizer
from inference.engine.params import SamplingParams, SequenceParams
from inference.models import Generation, Priority
from inference.queue import generations
from inference.token_stream import subscribers
from inference.token_stream.entries import TokenEntry

PARAMS = SequenceParams(sampling=SamplingParams(seed=7, temperature=0.0))


def queued(
    owner: str = "user:1",
    *,
    prompt: Sequence[int] = (1, 2, 3),
    say: str | None = None,
    waited_secs: float = 0.0,
    priority: Priority = Priority.INTERACTIVE,
    params: SequenceParams = PARAMS,
    timeout_secs: float | None = 60.0,
    ephemeral: bool = False,
) -> Generation:
    """Return a stored, queued generation that has been waiting for ``waited_secs``; ``say`` is its prompt as text."""
    generation = generations.create(
        owner=owner,
        params=params,
        priority=priority,
        prompt_ids=prompt if say is None else get_tokenizer().encode(say),
        timeout_secs=timeout_secs,
        ephemeral=ephemeral,
        capped=False,
    )
    if waited_secs:
        queued_at = timezone.now() - timedelta(seconds=waited_secs)
        Generation.objects.filter(pk=generation.pk).update(queued_at=queued_at)
        generation.refresh_from_db()
    return generation


def preparing(
    owner: str = "user:1", *, prepare_task: str = "chat.prepare", timeout_secs: float | None = 60.0
) -> Generation:
    return generations.create(
        owner=owner,
        params=PARAMS,
        prompt_ids=None,
        prepare_task=prepare_task,
        timeout_secs=timeout_secs,
        capped=False,
    )


def tokens(text: str, *, first: int = 1, device: str = "cpu") -> list[TokenEntry]:
    """Return one token for each character; its id is the character's number."""
    return [
        TokenEntry(index=index, token=ord(char), text=char, device=device)
        for index, char in enumerate(text, start=first)
    ]


async def joined(generation_id: UUID) -> str:
    """The id of a new reader."""
    reader_id = subscribers.new_id()
    await subscribers.refresh(generation_id, reader_id)
    return reader_id
