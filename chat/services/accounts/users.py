"""Deleting a user: with all conversations, private memories and generations of that user, or without them."""

from dataclasses import dataclass

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from rest_framework_simplejwt.token_blacklist.models import OutstandingToken

from chat.access.callers import Caller
from chat.error_translation import translated
from chat.models import Conversation
from chat.rag.models import ImportedFile, Note, Transcript
from chat.services.conversations import delete_conversation
from chat.transactions import one_transaction
from inference.models import DailyUsage, Generation
from inference.queue import generations, purges


@dataclass(frozen=True)
class Belongings:
    """Numbers of rows that are deleted with a user."""

    n_conversations: int
    n_transcripts: int
    n_notes: int


def belongings_of(user: AbstractBaseUser) -> Belongings:
    key = Caller.of_user(user).key
    return Belongings(
        n_conversations=Conversation.objects.of(key).count(),
        n_transcripts=Transcript.objects.filter(owner=key).count(),
        n_notes=Note.objects.filter(owner=key).count(),
    )


def delete_user(user: AbstractBaseUser) -> None:
    """Delete the user's rows, and the user last, so that a failed call can be repeated.

    Conversations are deleted one by one: other writers wait for one at a time. Their KV states are purged with them;
    private memories were shown in no other conversation.
    """
    caller = Caller.of_user(user)
    with translated():
        for pk in list(Conversation.objects.of(caller.key).values_list("pk", flat=True)):
            delete_conversation(caller=caller, conversation_id=pk)
    _delete_rest(caller, user.pk)


@one_transaction
def remove_user_alone(user: AbstractBaseUser) -> None:
    """Delete the user with keys and tokens; conversations, memories and usage stay, as those of a deleted user."""
    OutstandingToken.objects.filter(user_id=user.pk).delete()
    get_user_model()._default_manager.filter(pk=user.pk).delete()


@one_transaction
def _delete_rest(caller: Caller, user_id: int) -> None:
    Transcript.objects.filter(owner=caller.key).delete()
    Note.objects.filter(owner=caller.key).delete()
    DailyUsage.objects.filter(owner=caller.key).delete()
    # Their rows would outlive the user, with the text of the tokens.
    OutstandingToken.objects.filter(user_id=user_id).delete()
    ImportedFile.objects.filter(owner=caller.key).delete()
    generation_ids = list(Generation.objects.filter(owner=caller.key).values_list("pk", flat=True))
    generations.delete(generation_ids=generation_ids)
    purges.request_purge(reason="user", generation_ids=generation_ids)
    get_user_model()._default_manager.filter(pk=user_id).delete()
