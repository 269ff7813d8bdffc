"""``tools`` and ``tool_choice`` of /v1/chat/completions."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from chat.schemas.decoding import FieldError, invalid_field
from chat.schemas.scalars import Text
from chat.schemas.tool_use import MAX_TOOLS, check_chosen, check_tools
from chat.tool_calling.tools import Tool, ToolMode, ToolUse


class FunctionBody(msgspec.Struct, frozen=True, kw_only=True):
    """A function that the model may call. With ``strict`` a schema with an unknown keyword is refused; without, the
    keyword is ignored."""

    name: Text
    description: Text | None = None
    parameters: Annotated[dict[str, Any], Meta(description="JSON Schema of the arguments, an object.")] | None = None
    strict: bool | None = None

    def __post_init__(self) -> None:
        if self.parameters and self.parameters.get("type", "object") != "object":
            raise FieldError("parameters.type", "must be object")


class ToolBody(msgspec.Struct, frozen=True, kw_only=True):
    function: FunctionBody
    type: Literal["function"] = "function"

    @property
    def tool(self) -> Tool:
        return Tool(
            name=self.function.name,
            description=self.function.description or "",
            parameters=self.function.parameters or {},
            strict=bool(self.function.strict),
        )


class ChosenFunction(msgspec.Struct, frozen=True, kw_only=True):
    name: Text


class AllowedTool(msgspec.Struct, frozen=True, kw_only=True):
    function: ChosenFunction
    type: Literal["function"] = "function"


class AllowedTools(msgspec.Struct, frozen=True, kw_only=True):
    mode: Literal["auto", "required"]
    tools: Annotated[list[AllowedTool], Meta(min_length=1, max_length=MAX_TOOLS)]


class ChosenTool(msgspec.Struct, frozen=True, kw_only=True):
    """The one function that has to be called; or ``allowed_tools``: those among which the model may choose, while it is
    shown all."""

    type: Literal["function", "allowed_tools"] = "function"
    function: ChosenFunction | None = None
    allowed_tools: AllowedTools | None = None

    def __post_init__(self) -> None:
        if getattr(self, self.type) is None:
            raise FieldError(self.type, "is required")


ToolBodies = Annotated[list[ToolBody], Meta(max_length=MAX_TOOLS)]
ToolChoice = Literal["none", "auto", "required"] | ChosenTool


def tool_use(tools: list[ToolBody] | None, choice: ToolChoice | None, *, parallel: bool | None) -> ToolUse | None:
    """Return the use of tools that a request asks for; None without tools. Raises InvalidRequest."""
    if not tools:
        if choice not in (None, "none", "auto"):
            raise invalid_field("tool_choice", "needs tools")
        return None
    offered = tuple(body.tool for body in tools)
    check_tools(offered, path_of=lambda index: f"tools[{index}].function")
    if isinstance(choice, ChosenTool) and choice.function is not None and choice.type == "function":
        check_chosen(choice.function.name, offered, field="tool_choice.function.name")
        return ToolUse(tools=offered, mode=ToolMode.REQUIRED, name=choice.function.name)
    names: tuple[str, ...] = ()
    if isinstance(choice, ChosenTool):
        allowed = choice.allowed_tools
        names = tuple(tool.function.name for tool in allowed.tools) if allowed else ()
        for index, name in enumerate(names):
            check_chosen(name, offered, field=f"tool_choice.allowed_tools.tools[{index}].function.name")
        choice = allowed.mode if allowed else None
    return ToolUse(tools=offered, mode=ToolMode(choice or "auto"), allowed=names, parallel=parallel is not False)
