"""HTTP calls to other services of the installation, none of which is trusted with more than an answer.

An answer is read raw, since a few kilobytes of nested gzip are gigabytes, up to a number of bytes, within one deadline.
Redirects are not followed, and no proxy of the environment sees a call or answers one.
"""

import json
from typing import Any, cast

import httpx

from compat.httpx_deadline import DeadlineTransport, deadline

MAX_ANSWER_BYTES = 1 << 20
IDENTITY = {"Accept-Encoding": "identity"}


class AnswerRefused(httpx.HTTPError):
    """The answer is compressed or too large; it was not read to its end."""


def open_client(base_url: str = "", *, transport: httpx.BaseTransport | None = None) -> httpx.Client:
    """Return a client for ``call``; ``transport`` replaces the network."""
    return httpx.Client(base_url=base_url, trust_env=False, transport=transport or DeadlineTransport())


def call(
    client: httpx.Client,
    method: str,
    url: str,
    *,
    secs: float,
    connect_secs: float | None = None,
    body: object = None,
    headers: dict[str, str] | None = None,
    max_bytes: int = MAX_ANSWER_BYTES,
) -> httpx.Response:
    """Send a request and read its answer, both within ``secs``. Raises httpx.HTTPError, of which AnswerRefused."""
    timeout = httpx.Timeout(secs, connect=min(secs, connect_secs or secs))
    fields = {**(headers or {}), **IDENTITY}
    with deadline(secs), client.stream(method, url, json=body, headers=fields, timeout=timeout) as response:
        _require_identity(response)
        content = bytearray()
        # The stream itself, which is raw: the method for it raises for answers that a test has made whole.
        for part in cast(httpx.SyncByteStream, response.stream):
            content += part
            _require_size(content, max_bytes)
    return _whole(response, content)


async def call_async(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    body: object = None,
    headers: dict[str, str] | None = None,
    max_bytes: int = MAX_ANSWER_BYTES,
) -> httpx.Response:
    """Call without a deadline: the caller has ``asyncio.timeout``."""
    async with client.stream(method, url, json=body, headers={**(headers or {}), **IDENTITY}) as response:
        _require_identity(response)
        content = bytearray()
        async for part in cast(httpx.AsyncByteStream, response.stream):
            content += part
            _require_size(content, max_bytes)
    return _whole(response, content)


def json_of(response: httpx.Response) -> Any:  # noqa: ANN401  any JSON value
    """Decode an answer. Raises ValueError, also for one that is nested too deeply."""
    try:
        return json.loads(response.content)
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error


def one_line(value: object) -> str:
    """Return the beginning of a text of another service on one line, for logs and pages; empty for no text."""
    return "".join(char if char.isprintable() else " " for char in value[:200]) if isinstance(value, str) else ""


def _require_identity(response: httpx.Response) -> None:
    coding = response.headers.get("Content-Encoding", "identity")
    if coding.strip().lower() not in ("", "identity"):
        raise AnswerRefused("the answer is compressed although identity was requested")


def _require_size(content: bytearray, max_bytes: int) -> None:
    if len(content) > max_bytes:
        raise AnswerRefused(f"the answer is larger than {max_bytes} bytes")


def _whole(response: httpx.Response, content: bytearray) -> httpx.Response:
    return httpx.Response(response.status_code, content=bytes(content), request=response.request)
