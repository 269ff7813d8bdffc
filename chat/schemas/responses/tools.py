"""``tools`` and ``tool_choice`` of /v1/responses: functions only."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from chat.schemas.decoding import FieldError, invalid_field
from chat.schemas.scalars import Text
from chat.schemas.tool_use import MAX_TOOLS, check_chosen, check_tools
from chat.tool_calling.tools import Tool, ToolMode, ToolUse


class ResponseTool(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A function that the model may call. With ``strict`` a schema with an unknown keyword is refused; without, the
    keyword is ignored."""

    type: Literal["function"]
    name: Text
    description: Text | None = None
    parameters: Annotated[dict[str, Any], Meta(description="JSON Schema of the arguments, an object.")] | None = None
    strict: bool | None = None

    def __post_init__(self) -> None:
        if self.parameters and self.parameters.get("type", "object") != "object":
            raise FieldError("parameters.type", "must be object")

    @property
    def tool(self) -> Tool:
        return Tool(
            name=self.name,
            description=self.description or "",
            parameters=self.parameters or {},
            strict=bool(self.strict),
        )


class AllowedResponseTool(msgspec.Struct, frozen=True, kw_only=True):
    name: Text
    type: Literal["function"] = "function"


class ChosenResponseTool(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The one function that has to be called; or ``allowed_tools``: those among which the model may choose, while it is
    shown all."""

    type: Literal["function", "allowed_tools"]
    name: Text | None = None
    mode: Literal["auto", "required"] | None = None
    tools: Annotated[list[AllowedResponseTool], Meta(min_length=1, max_length=MAX_TOOLS)] | None = None

    def __post_init__(self) -> None:
        for name in ("name",) if self.type == "function" else ("mode", "tools"):
            if getattr(self, name) is None:
                raise FieldError(name, "is required")


ResponseTools = Annotated[list[ResponseTool], Meta(max_length=MAX_TOOLS)]
ResponseToolChoice = Literal["none", "auto", "required"] | ChosenResponseTool


def response_tool_use(
    tools: list[ResponseTool] | None, choice: ResponseToolChoice | None, *, parallel: bool | None
) -> ToolUse | None:
    """Return the use of tools that a request asks for; None without tools. Raises InvalidRequest."""
    if not tools:
        if choice not in (None, "none", "auto"):
            raise invalid_field("tool_choice", "needs tools")
        return None
    offered = tuple(body.tool for body in tools)
    check_tools(offered, path_of=lambda index: f"tools[{index}]")
    if isinstance(choice, ChosenResponseTool) and choice.type == "function":
        name = choice.name or ""
        check_chosen(name, offered, field="tool_choice.name")
        return ToolUse(tools=offered, mode=ToolMode.REQUIRED, name=name)
    names: tuple[str, ...] = ()
    if isinstance(choice, ChosenResponseTool):
        names = tuple(tool.name for tool in choice.tools or ())
        for index, name in enumerate(names):
            check_chosen(name, offered, field=f"tool_choice.tools[{index}].name")
        choice = choice.mode
    return ToolUse(tools=offered, mode=ToolMode(choice or "auto"), allowed=names, parallel=parallel is not False)
