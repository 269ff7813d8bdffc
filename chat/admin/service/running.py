"""The page of the generations that wait or run, with their texts so far."""

from dataclasses import dataclass
from datetime import datetime

from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.safestring import SafeString

from chat.access.owners import owner_labels
from chat.admin.common.changelists import conversation_link
from chat.admin.common.formatting import device_text, duration_text
from chat.models import Message
from inference.enums import UNFINISHED
from inference.errors import StoreUnavailable
from inference.models import Generation, Priority
from inference.queue.results import device_runs
from inference.token_stream import reader

MOST_SHOWN = 50
SHOWN_CHARS = 1_500


@dataclass(frozen=True)
class TextSoFar:
    """The text of an answer that has not ended, as its readers have it; ``problem`` is the reason for having none."""

    text: str = ""
    thought: str = ""
    n_tokens: int = 0
    device: str = ""
    problem: str = ""

    @property
    def end(self) -> str:
        """The last characters: what has just come."""
        return self.text if len(self.text) <= SHOWN_CHARS else f"\u2026{self.text[-SHOWN_CHARS:]}"


@dataclass(frozen=True)
class LiveAnswer:
    """A row of the page."""

    generation: Generation
    owner: str
    conversation: SafeString | str
    so_far: TextSoFar
    since: datetime
    age: str
    priority: str


def text_so_far(generation: Generation) -> TextSoFar:
    """Read the token log of an unfinished generation. What is not to be stored is shown to its own readers alone."""
    if generation.ephemeral:
        return TextSoFar(problem="The text is not stored and not shown.")
    try:
        tokens = reader.tail(generation.pk)
    except StoreUnavailable:
        return TextSoFar(problem="The text cannot be read while Redis does not answer.")
    return TextSoFar(
        text="".join(token.text for token in tokens),
        thought="".join(token.thought for token in tokens),
        n_tokens=len(tokens),
        device=device_text(device_runs(tokens)),
    )


def running_answers() -> list[LiveAnswer]:
    """Return the running generations and those that wait, the oldest first."""
    rows = list(
        Generation.objects.filter(status__in=UNFINISHED)
        .defer("prompt", "output", "details")
        .order_by("-status", "created_at")[:MOST_SHOWN]
    )
    labels = owner_labels(row.owner for row in rows)
    messages = Message.objects.filter(generation__in=[row.pk for row in rows]).select_related("conversation")
    conversations = {message.generation_id: message.conversation for message in messages.defer("rendered")}
    now = timezone.now()
    answers = []
    for row in rows:
        conversation = conversations.get(row.pk)
        since = row.started_at or row.queued_at or row.created_at
        answers.append(
            LiveAnswer(
                generation=row,
                owner=labels[row.owner],
                conversation=conversation_link(conversation) if conversation else "not stored",
                so_far=text_so_far(row),
                since=since,
                age=duration_text((now - since).total_seconds() * 1000),
                priority=Priority(row.priority).label.lower(),
            )
        )
    return answers


def running_page(request: HttpRequest, context: dict[str, object]) -> HttpResponse:
    answers = running_answers()
    return TemplateResponse(
        request,
        "admin/service/running.html",
        {
            **context,
            "title": "Running and waiting answers",
            "answers": answers,
            "n_more": Generation.objects.filter(status__in=UNFINISHED).count() - len(answers),
        },
    )
