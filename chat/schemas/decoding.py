"""Decoding of JSON values into structs, with one error that names the first wrong field by its path.

Types are taken as they are: "0.5" is no number and 1 is not true. Unknown fields are ignored. The texts of all errors
of type, range and presence are here.
"""

import math
import re
from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from chat.errors import InvalidJson, InvalidRequest
from chat.schemas.scalars import COUNT_PATTERN

Body = TypeVar("Body", bound=msgspec.Struct)

MAX_EXACT_FLOAT = 2**53  # from here on a float may stand for several whole numbers
NO_COUNT = "must be a whole number of at least -1"

# msgspec gives paths such as $.messages[0].content, and $.name[...] for the value of a key.
_PATH = re.compile(r"\A(?P<message>.*) - at (?:`key` in )?`\$(?P<path>[^`]*)`", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_MISSING = re.compile(r"Object missing required field `([^`]+)`")
_SENTENCES = [
    (re.compile(r"Expected `\w+` >= (.+)"), "must be at least {}"),
    (re.compile(r"Expected `\w+` <= (.+)"), "must be at most {}"),
    (re.compile(r"Expected `\w+` of length >= (1)"), "must not be empty"),
    (re.compile(r"Expected `array` of length <= (.+)"), "must have at most {} entries"),
    (re.compile(r"Expected `str` of length <= (.+)"), "must have at most {} characters"),
    (re.compile(rf"Expected `str` matching regex ({re.escape(repr(COUNT_PATTERN))})"), NO_COUNT),
    (re.compile(r"Expected `str` matching (.+)", re.DOTALL), "must not contain NUL characters or lone surrogates"),
    (re.compile(r"(Number|Integer) (value )?out of range"), "must be a finite number"),
]
_TYPES = re.compile(r"Expected `([^`]+)`, got `([^`]+)`")
_TYPE_NAMES = {
    "array": "a list",
    "bool": "true or false",
    "float": "a number",
    "int": "a whole number",
    "object": "a JSON object",
    "str": "a string",
}
type_info = cache(inspect.type_info)


class FieldError(ValueError):
    """A struct's own check failed; ``field`` is relative to the struct. Raised in ``__post_init__``."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def decode(kind: type[Body], data: object) -> Body:
    """Return ``data`` as a struct. Raises InvalidRequest with the path of the first wrong field."""
    if isinstance(data, dict):
        # Languages with one type of number write whole ones as 5.0.
        data = {
            name: int(value)
            if isinstance(value, float) and value.is_integer() and abs(value) < MAX_EXACT_FLOAT
            else value
            for name, value in data.items()
        }
    try:
        return _converted(kind, data)
    except msgspec.ValidationError as error:
        raise _invalid_request(kind, data, error) from error
    except RecursionError as error:
        raise InvalidJson("the body is nested too deeply") from error


def invalid_field(field: str, sentence: str) -> InvalidRequest:
    """Return the error of one field; ``sentence`` goes on after its path: "must be at least 1"."""
    return InvalidRequest(f"{field} {sentence}", field=field)


def _converted(kind: type[Body], data: object) -> Body:
    try:
        return msgspec.convert(data, kind)
    except UnicodeEncodeError:
        # msgspec cannot compare half a surrogate pair with the names of fields or choices.
        return msgspec.convert(_without_halves(data), kind)


def _without_halves(value: Any) -> Any:  # noqa: ANN401
    """Return a JSON value with lone surrogates replaced by NUL, which is refused wherever they are."""
    if isinstance(value, str):
        return _LONE_SURROGATE.sub("\0", value)
    if isinstance(value, dict):
        return {_without_halves(name): _without_halves(member) for name, member in value.items()}
    return [_without_halves(member) for member in value] if isinstance(value, list) else value


def _invalid_request(kind: type[msgspec.Struct], data: object, error: msgspec.ValidationError) -> InvalidRequest:
    match = _PATH.fullmatch(str(error))
    message, path = (match["message"], match["path"]) if match else (str(error), "")
    steps: list[str | int] = [int(index) if index else name for name, index in _STEP.findall(path)]
    if isinstance(error.__cause__, FieldError):
        return invalid_field(_joined([*steps, error.__cause__.field]), message)
    if missing := _MISSING.fullmatch(message):
        return invalid_field(_joined([*steps, missing[1]]), "is required")
    sentence = _sentence(kind, data, steps, message)
    if not steps:
        return InvalidRequest(f"the body {sentence}")
    return invalid_field(_joined(steps), sentence)


def _joined(steps: list[str | int]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")


def _sentence(kind: type[msgspec.Struct], data: object, steps: list[str | int], message: str) -> str:
    value = _value_at(data, steps)
    if isinstance(value, float) and not math.isfinite(value):
        return "must be a finite number"
    if message.startswith("Invalid enum value"):
        return _one_of(_choices(kind, steps))
    for pattern, sentence in _SENTENCES:
        if match := pattern.fullmatch(message):
            return sentence.format(match[1].removesuffix(".0"))
    match = _TYPES.fullmatch(message)
    if match is None:
        return "is not valid"
    if match[2] == "null" and steps and isinstance(steps[-1], str):
        return "is required"
    if match[1].startswith("str") and (choices := _choices(kind, steps)):
        return _one_of(choices)
    names = [_TYPE_NAMES[name] for name in match[1].split(" | ") if name in _TYPE_NAMES]
    return f"must be {' or '.join(names)}"


def _value_at(data: Any, steps: list[str | int]) -> object:  # noqa: ANN401
    for step in steps:
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _one_of(choices: tuple[str, ...]) -> str:
    quoted = ", ".join(f'"{choice}"' for choice in choices)
    return f"must be one of {quoted}" if len(choices) > 1 else f"must be {quoted}"


def _choices(kind: type[msgspec.Struct], steps: list[str | int]) -> tuple[str, ...]:
    """Return the texts that the field at the path may have; empty when any text will do."""
    types = [type_info(kind)]
    for step in steps:
        members = [member for outer in types for member in _members(outer)]
        types = []
        for member in members:
            if isinstance(member, inspect.StructType):
                types += [field.type for field in member.fields if field.encode_name == step]
            if isinstance(member, inspect.ListType):
                types.append(member.item_type)
    for member in (member for outer in types for member in _members(outer)):
        if isinstance(member, inspect.EnumType):
            return tuple(item.value for item in member.cls)
        if isinstance(member, inspect.LiteralType):
            return tuple(str(value) for value in member.values)
    return ()


def _members(kind: inspect.Type) -> tuple[inspect.Type, ...]:
    return kind.types if isinstance(kind, inspect.UnionType) else (kind,)
