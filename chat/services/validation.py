"""Rules between the fields of a request, and what it then says: the system text, the history, the new message."""

from dataclasses import dataclass

from chat.enums import ChatRole
from chat.errors import InvalidRequest
from chat.models import Role
from chat.prompting.message_groups import DialogueMessage
from chat.schemas.requests import ChatMessage, ChatRequest, RunOptions
from inference.config.tokenizer import Tokenizer


@dataclass(frozen=True)
class ValidatedRequest:
    """What a chat request says. ``system`` is empty for the default; ``earlier`` is the history that was sent. An empty
    ``user`` stands for the question that is asked again."""

    user: str
    earlier: tuple[DialogueMessage, ...] = ()
    system: str = ""


def validate_request(request: ChatRequest) -> ValidatedRequest:
    """Raises InvalidRequest, naming the field."""
    if request.replaces and not request.conversation_id:
        raise InvalidRequest("replaces needs the conversation_id of its message", field="replaces")
    if request.replaces and request.message is None and not request.messages:
        return ValidatedRequest("")  # the same again
    asked = _of_known_conversation(request) if request.conversation_id else _of_sent_history(request)
    if not asked.user.strip():
        raise InvalidRequest("the new message is empty", field="message" if request.message else "messages")
    return asked


def _of_known_conversation(request: ChatRequest) -> ValidatedRequest:
    texts = [message.content for message in request.messages if message.role is ChatRole.USER]
    if request.message is not None:
        if request.messages:
            raise InvalidRequest("give either message or messages", field="message")
        return ValidatedRequest(request.message)
    if len(texts) != 1 or len(request.messages) != 1:
        raise InvalidRequest("with conversation_id, messages holds exactly one new user message", field="messages")
    return ValidatedRequest(texts[0])


def _of_sent_history(request: ChatRequest) -> ValidatedRequest:
    if request.message is not None:
        raise InvalidRequest("message needs a conversation_id; without one, send messages", field="message")
    if not request.messages:
        raise InvalidRequest("messages is empty", field="messages")
    first, *others = request.messages
    said = others if first.role is ChatRole.SYSTEM else [first, *others]
    if any(message.role is ChatRole.SYSTEM for message in said):
        raise InvalidRequest("a system message may come first only", field="messages")
    if not said or said[-1].role is not ChatRole.USER:
        raise InvalidRequest("the last message must be the user's", field="messages")
    system = first.content if first.role is ChatRole.SYSTEM else ""
    return ValidatedRequest(said[-1].content, tuple(_said(message) for message in said[:-1]), system)


def _said(message: ChatMessage) -> DialogueMessage:
    return DialogueMessage(Role.USER if message.role is ChatRole.USER else Role.ASSISTANT, message.content)


def check_options(options: RunOptions, tokenizer: Tokenizer) -> None:
    """What only the model's vocabulary and context can tell. Raises InvalidRequest."""
    if options.max_tokens > tokenizer.context_size:
        raise InvalidRequest(
            f"max_tokens is {options.max_tokens}, but the context has {tokenizer.context_size} tokens",
            field="max_tokens",
        )
    n_tokens = tokenizer.vocabulary.n_tokens
    unknown = next((token for token in options.logit_bias if not 0 <= token < n_tokens), None)
    if unknown is not None:
        raise InvalidRequest(f"logit_bias names token {unknown}, the vocabulary has {n_tokens}", field="logit_bias")
