"""Types of what /v1/messages gives, whole and in events."""

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]


class SourceCitation(Struct, frozen=True, kw_only=True):
    """A citation of a source by a block of text; ``source`` names the memory."""

    type: Literal["search_result_location"] = "search_result_location"
    cited_text: str
    source: str
    title: str
    search_result_index: int
    start_block_index: int = 0
    end_block_index: int = 1


class TextBlock(Struct, frozen=True, kw_only=True, tag_field="type", tag="text"):
    text: str
    citations: list[SourceCitation] | None = None


class ThinkingBlock(Struct, frozen=True, kw_only=True, tag_field="type", tag="thinking"):
    """A thought of a reasoning model. Its signature is empty: a thought that is sent back is read without one."""

    thinking: str
    signature: str = ""


class ToolUseBlock(Struct, frozen=True, kw_only=True, tag_field="type", tag="tool_use"):
    """A use of a tool; ``input`` is empty where the answer was cut within it."""

    id: str
    name: str
    input: dict[str, Any]


AnswerBlock = TextBlock | ThinkingBlock | ToolUseBlock


class ThinkingDetails(Struct, frozen=True, kw_only=True):
    thinking_tokens: int


class MessageUsage(Struct, frozen=True, kw_only=True):
    """Tokens of an answer. ``input_tokens`` were computed, ``cache_read_input_tokens`` had been before; together they
    are the prompt."""

    input_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    output_tokens: int
    output_tokens_details: ThinkingDetails | UnsetType = UNSET


class MessageAnswerBody(Struct, frozen=True, kw_only=True):
    """The body of /v1/messages. ``conversation_id`` (null for a turn that is not stored) is an extension."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[AnswerBlock]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: MessageUsage
    conversation_id: str | None


class TokenCountAnswer(Struct, frozen=True, kw_only=True):
    """The prompt's tokens; of one beyond the context at least so many."""

    input_tokens: int


class MessageStartEvent(Struct, frozen=True, kw_only=True):
    type: Literal["message_start"] = "message_start"
    message: MessageAnswerBody


class PingEvent(Struct, frozen=True, kw_only=True):
    type: Literal["ping"] = "ping"


class BlockStartEvent(Struct, frozen=True, kw_only=True):
    type: Literal["content_block_start"] = "content_block_start"
    index: int
    content_block: AnswerBlock


class BlockDelta(Struct, frozen=True, kw_only=True):
    """More of a block: of its text, its thought, or the JSON of its input; or a citation."""

    type: Literal["text_delta", "thinking_delta", "input_json_delta", "citations_delta"]
    text: str | UnsetType = UNSET
    thinking: str | UnsetType = UNSET
    partial_json: str | UnsetType = UNSET
    citation: SourceCitation | UnsetType = UNSET


class BlockDeltaEvent(Struct, frozen=True, kw_only=True):
    type: Literal["content_block_delta"] = "content_block_delta"
    index: int
    delta: BlockDelta


class BlockStopEvent(Struct, frozen=True, kw_only=True):
    type: Literal["content_block_stop"] = "content_block_stop"
    index: int


class MessageDelta(Struct, frozen=True, kw_only=True):
    stop_reason: StopReason
    stop_sequence: str | None


class MessageDeltaEvent(Struct, frozen=True, kw_only=True):
    type: Literal["message_delta"] = "message_delta"
    delta: MessageDelta
    usage: MessageUsage


class MessageStopEvent(Struct, frozen=True, kw_only=True):
    type: Literal["message_stop"] = "message_stop"


MESSAGE_EVENTS = (
    MessageStartEvent,
    PingEvent,
    BlockStartEvent,
    BlockDeltaEvent,
    BlockStopEvent,
    MessageDeltaEvent,
    MessageStopEvent,
)
