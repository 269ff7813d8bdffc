"""The schemas within a JSON Schema (draft 2020-12, and the older keywords in use), by keyword. Pure."""

from collections.abc import Iterator
from typing import Any

JsonSchema = dict[str, Any] | bool
Path = tuple[str | int, ...]

_SINGLE = ("items", "additionalProperties", "additionalItems", "contains", "not", "if", "then", "else", "propertyNames")
_LISTED = ("prefixItems", "items", "allOf", "anyOf", "oneOf")
# Definitions last: a part that refers to one is found before it.
_NAMED = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")

# Formats that the compiler knows. Any other is an annotation, as the specification has it, and constrains nothing.
KNOWN_FORMATS = frozenset(("date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid"))


def parts_of(schema: object) -> Iterator[Path]:
    """Yield the paths of the schemas directly below ``schema``."""
    if not isinstance(schema, dict):
        return
    for keyword in _SINGLE:
        if isinstance(schema.get(keyword), dict | bool):
            yield (keyword,)
    for keyword in _LISTED:
        if isinstance(listed := schema.get(keyword), list):
            yield from ((keyword, index) for index in range(len(listed)))
    for keyword in _NAMED:
        if isinstance(named := schema.get(keyword), dict):
            yield from ((keyword, name) for name in named)


def part_at(schema: Any, path: Path) -> Any:  # noqa: ANN401  a JSON value
    for step in path:
        schema = schema[step]
    return schema


def without_annotations(schema: Any) -> Any:  # noqa: ANN401
    """Return a schema without formats that are annotations; it shares its other values with ``schema``."""
    if not isinstance(schema, dict):
        return schema
    plain: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword == "format" and isinstance(value, str) and value not in KNOWN_FORMATS:
            continue
        if keyword in _NAMED and isinstance(value, dict):
            plain[keyword] = {name: without_annotations(part) for name, part in value.items()}
        elif keyword in _LISTED and isinstance(value, list):
            plain[keyword] = [without_annotations(part) for part in value]
        elif keyword in _SINGLE:
            plain[keyword] = without_annotations(value)
        else:
            plain[keyword] = value
    return plain
