"""The search of a turn's own conversation for what its question needs, and the passages that later turns search."""

from collections.abc import Sequence

from django.utils import timezone

from chat.models import Conversation, Message, MessagePassage
from chat.prompting.message_groups import DialogueMessage
from chat.prompting.recalled import Recall, Recaller
from chat.recall.passages import N_FIRST, copied_passages, new_passages, said_passages
from chat.services.forking import Fork
from chat.services.questions.query_rewriting import earlier_questions, rewrite_query

# Messages before the question that are not recalled, so that none of them is taken for the last one. Of those before
# them, also the ones that the prompt shows: a small model finds beside its question what it misses further up.
N_NEAR = 2 * N_FIRST


def recaller_of(
    question: str, *, dialogue: Sequence[DialogueMessage], conversation: Conversation | None, n_stored: int
) -> Recaller:
    """Return a search of ``dialogue``, whose first ``n_stored`` messages are the first ones of ``conversation``; the
    question is completed by what it refers to."""

    def recall(n_messages: int) -> Recall:
        # Late: most conversations fit into their prompts, and a command begins an answer sooner without it.
        from chat.recall.search import search  # noqa: PLC0415

        rewritten = rewrite_query(question, earlier_questions(dialogue))
        passages = said_passages(dialogue[:-1], conversation, n_stored)
        n_far = max(n_messages, len(dialogue) - 1 - N_NEAR)
        return search(rewritten.text, passages, now=timezone.localtime(), n_searched=n_far)

    return recall


def passages_to_store(
    fork: Fork | None, conversation: Conversation, messages: Sequence[Message]
) -> list[MessagePassage]:
    """Return the passages that ``messages``, all of the conversation, lack; a fork's copies get those of its source."""
    copied = copied_passages(fork.source, fork.messages) if fork else []
    n_indexed = min(fork.source.n_indexed, len(fork.messages)) if fork else conversation.n_indexed
    return [*copied, *new_passages(messages, n_indexed)]
