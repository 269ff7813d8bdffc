"""Everything that belongs to a user, as one JSON document, written piece by piece."""

from collections.abc import Iterator
from typing import Any, cast

import msgspec
from django.contrib.auth.base_user import AbstractBaseUser
from django.db.models import Model

from chat.access.callers import Caller
from chat.models import ApiKey, Conversation
from chat.rag.models import Note, Transcript
from chat.schemas.accounts.key_bodies import key_answer
from chat.schemas.memories.answers import note_answer, transcript_answer
from chat.services.conversations import export_conversation
from inference.models import DailyUsage

ACCOUNT_FIELDS = ("username", "first_name", "last_name", "email", "date_joined", "last_login")


def export_user(user: AbstractBaseUser) -> Iterator[str]:
    """Yield the parts of the document. Neither passwords nor keys are in it."""
    caller = Caller.of_user(user)
    account = {name: getattr(user, name, None) for name in ACCOUNT_FIELDS}
    conversation_ids = list(Conversation.objects.of(caller.key).order_by("created_at").values_list("pk", flat=True))
    transcripts = Transcript.objects.filter(owner=caller.key).prefetch_related("segments")
    sections: dict[str, Iterator[object]] = {
        "conversations": (export_conversation(caller=caller, conversation_id=pk) for pk in conversation_ids),
        "notes": (note_answer(note) for note in Note.objects.filter(owner=caller.key).iterator(chunk_size=100)),
        "transcripts": (transcript_answer(row) for row in transcripts.iterator(chunk_size=10)),
        "api_keys": (key_answer(key) for key in ApiKey.objects.filter(user_id=user.pk)),
        "usage": (_usage(row) for row in DailyUsage.objects.filter(owner=caller.key)),
    }
    yield f'{{\n"user": {_as_text(account)}'
    for name, entries in sections.items():
        yield f',\n"{name}": ['
        for number, entry in enumerate(entries):
            yield (",\n" if number else "\n") + _as_text(entry)
        yield "]"
    yield "\n}\n"


def _usage(row: DailyUsage) -> dict[str, Any]:
    names = ("day", "n_generations", "n_prompt_tokens", "n_completion_tokens")
    return {name: getattr(cast(Model, row), name) for name in names}


def _as_text(value: object) -> str:
    return msgspec.json.encode(value).decode()
