"""DRF's nested validation errors -> the one InvalidRequest that names the first wrong field by its path."""

from collections.abc import Iterator, Mapping

from rest_framework.exceptions import ErrorDetail
from rest_framework.settings import api_settings

from chat.errors import InvalidRequest


def invalid_request(errors: object) -> InvalidRequest:
    """The first of ``errors`` as our own error: ``messages[2].content must be a string``."""
    path, message = next(_walk(errors, ""), ("", "the request is not valid"))
    # DRF's own messages end with a full stop, ours do not.
    text = message.rstrip(".")
    return InvalidRequest(f"{path} {text}" if path else text, field=path or None)


def _walk(errors: object, path: str) -> Iterator[tuple[str, str]]:
    """(path, message) of every error, in the order of the fields."""
    if isinstance(errors, ErrorDetail | str):
        yield path, str(errors)
    elif isinstance(errors, Mapping):
        for name, inner in errors.items():
            yield from _walk(inner, _joined(path, name))
    elif isinstance(errors, list | tuple):
        for index, inner in enumerate(errors):
            # The errors of a list's members come as one mapping each, those of a field as plain texts.
            yield from _walk(inner, _joined(path, index) if isinstance(inner, Mapping) else path)


def _joined(path: str, name: object) -> str:
    if isinstance(name, int):
        return f"{path}[{name}]"
    if name == api_settings.NON_FIELD_ERRORS_KEY:
        return path
    return f"{path}.{name}" if path else str(name)
