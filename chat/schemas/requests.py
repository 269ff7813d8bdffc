"""Typed requests of chat turns and completions, with the defaults of the wire format.

Shapes and ranges were checked where the object was made from foreign input; rules that need stored rows are the
services'.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from chat.enums import ChatRole, Effort, Strategy
from chat.errors import InvalidRequest
from chat.rag.query import SourceFilters
from chat.rag.sources import ContextItem
from chat.tool_calling.tools import ToolUse
from inference.models import Priority

WHOLE_CONTEXT = -1  # as ``max_tokens``: as many as the context leaves
QUARTER_CONTEXT = -2  # as ``max_tokens``: the part of the context that old turns make room for
SEEDS = 2**32
DEFAULT_RAG_TOP_K = 5
RESPONSE = "response"  # key of ``ChatRequest.response`` in the details of its generation


@dataclass(frozen=True)
class ChatMessage:
    """``thought``: of an answer that a client sends back."""

    role: ChatRole
    content: str
    thought: str = ""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Sampling and scheduling, for a chat turn and a raw completion alike. ``seed`` None: one is drawn."""

    max_tokens: int = 512
    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 40
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalizes_answer: bool = False  # presence and frequency count the tokens of the answer alone, as OpenAI has it
    logit_bias: Mapping[int, float | None] = field(default_factory=dict)
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    cache_prompt: bool = True
    grammar: str = ""  # that the answer obeys, compiled once already; empty: none
    grammar_has_text: bool = False  # an answer that obeys it may be plain text, as without one
    n_logprobs: int = 0  # alternatives reported with each token; 0: no log-probabilities
    reasoning_effort: Effort | None = None  # None: as the model's template has it
    thought_tokens: int | None = None  # most tokens of a thought, within the share of its effort
    n: int = 1  # answers to the same prompt, each with a seed of its own
    session_id: str = ""
    priority: Priority = Priority.INTERACTIVE
    timeout_s: float | None = None  # None: REQUEST_TIMEOUT_SECS, which is also the maximum

    def within(self, context_size: int) -> Self:
        """Return the options with ``max_tokens`` as a number; what the prompt takes of it is cut later."""
        shares = {WHOLE_CONTEXT: context_size, QUARTER_CONTEXT: context_size // 4}
        return replace(self, max_tokens=shares.get(self.max_tokens, self.max_tokens))

    def of_choice(self, number: int) -> Self:
        """Return the options of the answer with this number, from 0."""
        return self if self.seed is None else replace(self, seed=(self.seed + number) % SEEDS)

    @property
    def digest(self) -> str:
        """The same for equal requests, across processes."""
        plain = json.dumps(asdict(self), sort_keys=True, default=str)
        return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, kw_only=True)
class ChatRequest(RunOptions):
    """A chat turn. ``message`` is the short form of one user message; ``use_rag`` None: RAG_DEFAULT.

    ``replaces`` is a message of the conversation: the turn takes the place of its question, in a conversation that
    branches off there; without a message the same question is answered again. ``prefill`` is the beginning of the
    answer, which the model continues; such an answer is not stored.

    With ``appends`` all messages are new, and any number of them; ``follows`` then names the generation of the answer
    that they come after, in its conversation or, where that has gone on, in a branch of it, and ``outputs`` are path
    and call id of results whose calls are in the conversation. ``instructions`` stand before the conversation's system
    prompt in this turn alone. ``response`` is kept with the generation for /v1/responses. With ``has_store_default``
    the caller did not choose ``store``, and its service's default holds."""

    messages: tuple[ChatMessage, ...] = ()
    message: str | None = None
    written_to: str | None = field(default=None, compare=False)  # the field that had the message, where it is another
    conversation_id: uuid.UUID | None = None
    replaces: uuid.UUID | None = None
    follows: uuid.UUID | None = None
    appends: bool = False
    outputs: tuple[tuple[str, str], ...] = ()
    instructions: str = ""
    context: tuple[ContextItem, ...] = ()
    use_rag: bool | None = None
    rag_top_k: int = DEFAULT_RAG_TOP_K
    filters: SourceFilters = field(default_factory=SourceFilters)
    prefill: str = ""
    tool_use: ToolUse | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    response: Mapping[str, Any] = field(default_factory=dict)
    strategy: Strategy | None = None  # None: the conversation's own
    recall: bool | None = None  # None: the conversation's own
    auto_title: bool = False  # of a conversation that begins with this turn: the model may replace its first words
    store: bool = True
    has_store_default: bool = False

    @property
    def question_field(self) -> str:
        """The field that the caller wrote the new message to, which errors name."""
        return self.written_to or ("messages" if self.message is None else "message")

    @property
    def only_message(self) -> str:
        """The text of the one message, of the user, that goes on with a conversation. Raises InvalidRequest."""
        if self.message is not None:
            if self.messages:
                raise InvalidRequest("give either message or messages, not both", field="message")
            return self.message
        if len(self.messages) != 1 or self.messages[0].role is not ChatRole.USER:
            raise InvalidRequest("with conversation_id, messages holds exactly one new user message", field="messages")
        return self.messages[0].content


@dataclass(frozen=True, kw_only=True)
class CompletionRequest(RunOptions):
    """Raw prompts, text or token ids: no template, no history, nothing stored. With ``special`` the names of control
    tokens in a text stand for them."""

    prompt: str | tuple[int, ...]
    further_prompts: tuple[str | tuple[int, ...], ...] = ()
    special: bool = True
