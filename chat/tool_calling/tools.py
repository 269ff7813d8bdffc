"""Tools that a model may call in a turn. Knows no wire format and no prompt."""

from enum import StrEnum
from typing import Any

import msgspec

EMPTY_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}

# Keywords that decide, beside ``properties``, which names an object may have.
_NAMING_KEYWORDS = {"additionalProperties", "patternProperties", "unevaluatedProperties", "minProperties"}
_NAMING_KEYWORDS |= {"dependentSchemas", "allOf", "anyOf", "oneOf", "not", "if", "$ref", "$dynamicRef"}


class ToolMode(StrEnum):
    AUTO = "auto"  # text, or calls
    REQUIRED = "required"  # calls only
    NONE = "none"  # text only; the model is not shown the tools


class Tool(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A function. ``parameters`` is the JSON Schema of its arguments, which are one object.

    With ``strict`` every keyword of it is obeyed, or the request is refused; without, a keyword that the compiler does
    not know is ignored.
    """

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    strict: bool = False

    @property
    def schema(self) -> dict[str, Any]:
        """Schema of the arguments, which are an object whether ``parameters`` says so or not."""
        return {"type": "object", **self.parameters} if self.parameters else EMPTY_PARAMETERS

    @property
    def arguments_schema(self) -> dict[str, Any]:
        """Schema that calls obey: no argument that the tool does not name, unless ``schema`` speaks of others.

        A function refuses an argument that it does not know, and small models invent some wherever they may.
        """
        schema, names = self.schema, self.schema.get("properties")
        required = schema.get("required", [])
        if not isinstance(names, dict) or not isinstance(required, list) or _NAMING_KEYWORDS & schema.keys():
            return schema
        return schema | {"additionalProperties": False} if all(name in names for name in required) else schema

    @property
    def declaration(self) -> dict[str, Any]:
        """The tool as chat templates read it."""
        function = {"name": self.name, "description": self.description, "parameters": self.schema}
        return {"type": "function", "function": function}


class ToolUse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The tools of a request and how they may be used. ``name``: the one tool that has to be called. ``allowed``: names
    of those that may be called; empty: all. Without ``parallel`` an answer has at most one call."""

    tools: tuple[Tool, ...]
    mode: ToolMode = ToolMode.AUTO
    name: str = ""
    allowed: tuple[str, ...] = ()
    parallel: bool = True

    @property
    def offered(self) -> tuple[Tool, ...]:
        """Tools that the model is shown."""
        return () if self.mode is ToolMode.NONE else self.tools

    @property
    def callable_tools(self) -> tuple[Tool, ...]:
        """Tools that the answer may call."""
        names = {self.name} if self.name else set(self.allowed)
        return tuple(tool for tool in self.offered if not names or tool.name in names)
