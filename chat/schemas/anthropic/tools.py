"""``tools`` and ``tool_choice`` of /v1/messages: the client's own tools only."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from chat.errors import quoted
from chat.schemas.decoding import FieldError, invalid_field
from chat.schemas.openai.messages import unsupported
from chat.schemas.scalars import Text
from chat.schemas.tool_use import MAX_TOOLS, check_chosen, check_tools
from chat.tool_calling.tools import Tool, ToolMode, ToolUse


class AnthropicTool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool of the client. With ``strict`` a schema with an unknown keyword is refused; without, the keyword is
    ignored."""

    name: Text
    type: Text | None = None
    description: Text | None = None
    input_schema: Annotated[dict[str, Any], Meta(description="JSON Schema of the input, an object.")] | None = None
    strict: bool | None = None

    def __post_init__(self) -> None:
        if self.input_schema and self.input_schema.get("type", "object") != "object":
            raise FieldError("input_schema.type", "must be object")

    @property
    def tool(self) -> Tool:
        return Tool(
            name=self.name,
            description=self.description or "",
            parameters=self.input_schema or {},
            strict=bool(self.strict),
        )


class AnthropicToolChoice(msgspec.Struct, frozen=True, kw_only=True):
    """``any``: some tool has to be used, ``tool``: the one with the ``name``."""

    type: Literal["auto", "any", "tool", "none"]
    name: Text | None = None
    disable_parallel_tool_use: bool | None = None

    def __post_init__(self) -> None:
        if self.type == "tool" and self.name is None:
            raise FieldError("name", "is required")


AnthropicTools = Annotated[list[AnthropicTool], Meta(max_length=MAX_TOOLS)]
_MODES = {"auto": ToolMode.AUTO, "any": ToolMode.REQUIRED, "tool": ToolMode.REQUIRED, "none": ToolMode.NONE}


def anthropic_tool_use(tools: list[AnthropicTool] | None, choice: AnthropicToolChoice | None) -> ToolUse | None:
    """Return the use of tools that a request asks for; None without tools. Raises InvalidRequest."""
    if not tools:
        if choice and choice.type in ("any", "tool"):
            raise invalid_field("tool_choice", "needs tools")
        return None
    for index, body in enumerate(tools):
        if body.type not in (None, "custom"):
            raise unsupported(f"tools[{index}].type", f"tools of type {quoted(body.type)} are not supported")
        if body.input_schema is None:
            raise invalid_field(f"tools[{index}].input_schema", "is required")
    offered = tuple(body.tool for body in tools)
    check_tools(offered, path_of=lambda index: f"tools[{index}]")
    if choice is None:
        return ToolUse(tools=offered)
    name = choice.name or "" if choice.type == "tool" else ""
    if choice.type == "tool":
        check_chosen(name, offered, field="tool_choice.name")
    parallel = not choice.disable_parallel_tool_use
    return ToolUse(tools=offered, mode=_MODES[choice.type], name=name, parallel=parallel)
