"""Random requests: the routes, values for their fields, and a client that sends them.

They are sent to the ASGI application directly, with the exact bytes of headers and paths, without socket or server.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from channels.testing import WebsocketCommunicator
from hypothesis import strategies as st

from gemma_project.asgi import application

PATIENCE_SECS = 30.0
HELLO = [{"role": "user", "content": "Hello"}]
NOBODY = "6f1f2f44-3c5c-4d8e-9a53-0d3b3f9a6b10"
JSON_HEADER = (b"content-type", b"application/json")

ODD_TEXTS = ["", " ", "\0", "a\0b", "\ud800", "\U0001f41d", "é", "'; --", "%00", "../..", "<b>", "²", "x" * 2000]
TEXTS = st.sampled_from(["Hello", *ODD_TEXTS]) | st.text(max_size=20)
ODD_NUMBERS = [0, -1, 1, 2, 0.5, 2**31, 2**63, -(2**63) - 1, 10**400, 1e308, 1e-320, float("nan"), float("inf")]
LEAVES = st.none() | st.booleans() | st.sampled_from(ODD_NUMBERS) | st.integers() | st.floats() | TEXTS
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
IDS = st.sampled_from([NOBODY, NOBODY.upper(), f"{{{NOBODY}}}", "1", "9" * 18, "9" * 30]) | TEXTS
ODD_DATES = ["2026-01-02", "2026-01-02T03:04:05", "2026-01-02T24:00:00", "2026-W01-1", "2026-02-30", "-1", "0001-01-01"]
ODD_DATES += ["0001-01-01T00:00:00+23:59", "9999-12-31", "9999-12-31T23:59:59-23:59"]
DATES = st.sampled_from(ODD_DATES)
NUMBERS = st.sampled_from(ODD_NUMBERS) | st.integers(-3, 200) | st.floats(-2, 2)
TEXT_LISTS = st.lists(TEXTS, max_size=3)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=3)
SEGMENTS = st.lists(
    st.fixed_dictionaries(
        {"text": TEXTS},
        optional={"speaker": TEXTS, "start_time": NUMBERS, "emotion_scores": OBJECTS, "audio_metrics": VALUES},
    ),
    max_size=3,
)
# Likely values of a field by its name; any other value may be drawn as well.
LIKELY: dict[str, st.SearchStrategy[Any]] = {
    "messages": st.lists(
        st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system", "robot"]), "content": TEXTS}),
        max_size=4,
    ),
    "context": st.lists(TEXTS | st.fixed_dictionaries({"text": TEXTS, "metadata": VALUES}), max_size=3),
    "logit_bias": st.dictionaries(st.sampled_from(["1", "65", "-1", "²", "9" * 11]), NUMBERS | st.just(False)),
    "priority": st.sampled_from(["interactive", "batch", 1, 2]),
    "strategy": st.sampled_from(["summarize", "truncate", "error", "forget"]),
    "doc_type": st.sampled_from(["segment", "memory", "note"]),
    "segments": SEGMENTS,
    "metadata": OBJECTS,
    **dict.fromkeys(("conversation_id", "replaces", "generation_id", "session_id", "job_id", "task_id"), IDS),
    **dict.fromkeys(("start_date", "end_date", "created_at"), DATES),
    **dict.fromkeys(("stop", "speakers", "bias_emotions"), TEXT_LISTS),
    **dict.fromkeys(
        ("use_rag", "store", "recall", "archived", "auto_title", "ignore_eos", "cache_prompt"), st.booleans()
    ),
    **dict.fromkeys(("title", "body", "query", "prompt", "message", "username", "password", "full_text"), TEXTS),
}
FILTERS = ("speakers", "start_date", "end_date", "last_n_transcripts", "bias_emotions")
PENALTIES = ("repeat_penalty", "repeat_last_n", "presence_penalty")
SAMPLING = ("max_tokens", "temperature", "top_p", "top_k", "min_p", *PENALTIES, "logit_bias")
RUN = (*SAMPLING, "seed", "stop", "ignore_eos", "cache_prompt", "session_id", "priority", "timeout_s")
CONVERSATION = ("title", "system_prompt", "strategy", "keep", "archived", "recall")
HISTORY = ("strategy", "recall", "auto_title", "store")
CHAT = ("messages", "message", "conversation_id", "replaces", "context", "use_rag", "rag_top_k", *HISTORY)


@dataclass(frozen=True)
class Route:
    """``path`` may have one ``{id}``; ``good`` is a body that is taken, ``fields`` all that it may hold."""

    name: str
    method: str
    path: str
    good: Mapping[str, Any] = field(default_factory=dict)
    fields: tuple[str, ...] = ()


CHAT_FIELDS = (*RUN, *FILTERS, *CHAT)
ASKED = {"messages": HELLO, "store": False}
SEARCHED = {"query": "Hello"}
TRANSCRIPT = {"job_id": "j", "segments": [{"text": "Hello"}]}
ANTHROPIC = ("messages", "model", "system", "tools", "tool_choice", "thinking", "stop_sequences", "stream", "metadata")
MESSAGE = {"messages": HELLO, "model": "", "max_tokens": 5, "store": False}
RESPONSES = (
    "input",
    "instructions",
    "previous_response_id",
    "conversation",
    "include",
    "truncation",
    "background",
    "text",
)
SEGMENT_QUERY = ("keywords", "match", "search_type", "sort_by", "order", "limit", "offset", "context_lines", "emotions")
OPENAI = ("model", "n", "stream", "stream_options", "logprobs", "top_logprobs", "metadata", "tools", "store", "suffix")

ROUTES = (
    Route("root", "GET", "/"),
    Route("health", "GET", "/health"),
    Route("health-live", "GET", "/health/live"),
    Route("health-ready", "GET", "/health/ready"),
    Route("metrics", "GET", "/metrics"),
    Route("schema", "GET", "/api/schema/"),
    Route("docs", "GET", "/api/docs/"),
    Route("chat", "POST", "/chat", ASKED, CHAT_FIELDS),
    Route("chat-stream", "POST", "/chat/stream", ASKED, CHAT_FIELDS),
    Route("chat-resume", "GET", "/chat/stream/{id}"),
    Route("generate", "POST", "/generate", {"prompt": "Once"}, ("prompt", *RUN)),
    Route("openai-chat", "POST", "/v1/chat/completions", ASKED, ("messages", *OPENAI, *RUN)),
    Route("openai-completions", "POST", "/v1/completions", {"prompt": "Once"}, ("prompt", "echo", *OPENAI, *RUN)),
    Route("openai-responses", "POST", "/v1/responses", {"input": "x", "store": False}, (*RESPONSES, *OPENAI, *RUN)),
    Route("openai-response", "GET", "/v1/responses/{id}"),
    Route("openai-response", "DELETE", "/v1/responses/{id}"),
    Route("openai-response-cancel", "POST", "/v1/responses/{id}/cancel"),
    Route("openai-response-items", "GET", "/v1/responses/{id}/input_items"),
    Route("anthropic-messages", "POST", "/v1/messages", MESSAGE, (*ANTHROPIC, "store", *RUN)),
    Route("anthropic-count-tokens", "POST", "/v1/messages/count_tokens", ASKED, ANTHROPIC),
    Route("openai-embeddings", "POST", "/v1/embeddings", {"input": "x"}, ("input", "model", "dimensions")),
    Route("openai-models", "GET", "/v1/models"),
    Route("openai-model", "GET", "/v1/models/{id}"),
    Route("tokenize", "POST", "/tokenize", {"content": "x"}, ("content", "add_special", "with_pieces")),
    Route("detokenize", "POST", "/detokenize", {"tokens": [5]}, ("tokens",)),
    Route("apply-template", "POST", "/apply-template", ASKED, ("messages",)),
    Route("generation-cancel", "POST", "/api/generations/{id}/cancel"),
    Route("memory-search-semantic", "POST", "/search/semantic", SEARCHED, ("query", "top_k", "doc_type", *FILTERS)),
    Route("memory-search-old", "POST", "/search", SEARCHED, ("query", "top_k", "doc_type", *FILTERS)),
    Route(
        "memory-index",
        "POST",
        "/index/transcript",
        TRANSCRIPT,
        ("job_id", "session_id", "title", "full_text", "audio_duration", "created_at", "segments"),
    ),
    Route("memory-add", "POST", "/memory/add", {"title": "t", "body": "b"}, ("title", "body", "metadata")),
    Route("memory-list", "GET", "/memory/list"),
    Route("memory-search", "POST", "/memory/search", SEARCHED, ("query", "limit")),
    Route("memory-stats", "GET", "/memory/stats"),
    Route("memory-delete", "DELETE", "/memory/{id}"),
    Route("transcripts-recent", "GET", "/transcripts/recent"),
    Route("transcripts-speakers", "GET", "/transcripts/speakers"),
    Route("transcripts-count", "POST", "/transcripts/count", {}, FILTERS),
    Route("transcript", "DELETE", "/transcript/{id}"),
    Route("transcript", "GET", "/transcript/{id}"),
    Route("transcripts-query", "POST", "/transcripts/query", {}, (*SEGMENT_QUERY, *FILTERS)),
    Route("transcripts-time-range", "GET", "/debug/transcripts/time-range"),
    Route("memory-emotions", "GET", "/memory/emotions/stats", fields=("start_date", "end_date")),
    Route("emotions-stats", "GET", "/emotions/stats", fields=("period",)),
    Route("emotions-analytics", "GET", "/emotions/analytics", fields=("period",)),
    Route("emotions-moments", "GET", "/emotions/moments", fields=("emotion", "speaker", "limit", "offset")),
    Route(
        "chat-rag", "POST", "/chat/rag", {"query": "Hello", "store": False}, ("query", "top_k_results", *CHAT_FIELDS)
    ),
    Route("service-stats", "GET", "/stats"),
    Route("model-list", "GET", "/models/list"),
    Route("model-settings", "GET", "/settings"),
    Route("model-settings-update", "POST", "/settings/update"),
    Route("analyze", "POST", "/analyze", fields=("filters", "custom_prompt", *RUN)),
    Route("score-chunk", "POST", "/score-chunk"),
    Route("card-warmup", "POST", "/warmup", {}, ("session_id",)),
    Route("card-move-to-cpu", "POST", "/move-to-cpu"),
    Route("card-release-session", "POST", "/release-session", {}, ("session_id",)),
    Route(
        "gpu-acquire",
        "POST",
        "/gpu/acquire",
        {"session_id": "s"},
        ("session_id", "requester", "priority", "timeout_ms", "metadata"),
    ),
    Route("gpu-renew", "POST", "/gpu/renew", {"session_id": "s"}, ("session_id", "requester")),
    Route("gpu-release", "POST", "/gpu/release", {"session_id": "s"}, ("session_id", "requester")),
    Route("gpu-state", "GET", "/gpu/state"),
    Route("gpu-old-request", "POST", "/gemma/request", {"task_id": "t"}, ("task_id",)),
    Route("gpu-old-release", "POST", "/gemma/release/{id}"),
    Route("gpu-old-status", "GET", "/status"),
    Route("gpu-force-reset", "POST", "/admin/force-reset"),
    Route("token", "POST", "/api/token/", {"username": "u", "password": "p"}, ("username", "password")),
    Route("token-refresh", "POST", "/api/token/refresh/", {"refresh": "r"}, ("refresh",)),
    Route("token-logout", "POST", "/api/token/logout/", {"refresh": "r"}, ("refresh", "everywhere")),
    Route("account", "DELETE", "/api/account/", {"password": "p"}, ("password",)),
    Route("account-export", "GET", "/api/account/export/"),
    Route("usage", "GET", "/api/usage/"),
    Route("api-key-list", "GET", "/api/keys/"),
    Route("api-key-list", "POST", "/api/keys/", {"name": "x"}, ("name", "scopes", "expires_in_days")),
    Route("api-key-detail", "GET", "/api/keys/{id}/"),
    Route("api-key-detail", "DELETE", "/api/keys/{id}/"),
    Route("conversation-list", "GET", "/api/conversations/"),
    Route("conversation-list", "POST", "/api/conversations/", {}, CONVERSATION),
    Route("conversation-detail", "GET", "/api/conversations/{id}/"),
    Route("conversation-detail", "PATCH", "/api/conversations/{id}/", {}, CONVERSATION),
    Route("conversation-detail", "DELETE", "/api/conversations/{id}/"),
    Route("conversation-messages", "GET", "/api/conversations/{id}/messages/"),
    Route("conversation-versions", "GET", "/api/conversations/{id}/versions/"),
    Route("conversation-summaries", "GET", "/api/conversations/{id}/summaries/"),
    Route("conversation-export", "GET", "/api/conversations/{id}/export/"),
)

HEADER_NAMES = [b"idempotency-key", b"last-event-id", b"authorization", b"x-service-token", b"origin", b"host"]
HEADER_NAMES += [b"cookie", b"content-type", b"content-length", b"x-forwarded-for", b"forwarded", b"accept-language"]
HEADER_NAMES += [b"accept", b"content-encoding", b"transfer-encoding", b"x-csrftoken", b"x-http-method-override"]
ODD_HEADERS = [b"Bearer x.y.z", b"Bearer \xff", b"Basic x", b"\xb2", b"-1", b"9" * 30, b"http://[", b"null"]
ODD_HEADERS += [b"sessionid=x; csrftoken=y", b'sessionid="aaaaaaaa\\000"', b"text/html; charset=\xff"]
# Bytes that a server passes on: all but those that end a line.
HEADER_BYTES = st.binary(max_size=30).map(lambda raw: raw.translate(None, b"\0\r\n")) | st.sampled_from(ODD_HEADERS)
QUERIES = st.dictionaries(
    st.sampled_from(["limit", "offset", "search", "format", "after", "x"]),
    st.sampled_from(["", "1", "-1", "%B2", "%00", "%FF", "%F0%9F%90%9D", "json", "markdown", "9" * 30, "a" * 300]),
    max_size=3,
).map(lambda query: "&".join(f"{name}={value}" for name, value in query.items()))
ODD_IDS = [NOBODY, "1", "9" * 18, "9" * 19, "%00", "a%00b", "%FF", "%2F", "%F0%9F%90%9D", "..", "x" * 500]
PATH_IDS = st.sampled_from(ODD_IDS)


@dataclass(frozen=True)
class Shot:
    """One request. ``is_plain``: its body is a JSON object, sent in the usual way."""

    route: Route
    method: str
    path: str
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = (JSON_HEADER,)
    is_plain: bool = False


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@st.composite
def shots(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Shot:
    """Mostly a good body with a few fields that hold something else; sometimes nonsense all round."""
    route: Route = draw(st.sampled_from(ROUTES))
    path = route.path.format(id=draw(PATH_IDS)) if "{id}" in route.path else route.path
    if route.fields and draw(st.integers(0, 3)):
        body = json.dumps(draw(bodies(route.good, route.fields)))
        return Shot(route, route.method, path, body.encode(), is_plain=True)
    method = draw(st.sampled_from([route.method] * 5 + ["GET", "HEAD", "PUT", "OPTIONS", "TRACE", "BREW"]))
    body = draw(st.binary(max_size=60) | VALUES.map(lambda value: json.dumps(value).encode()) | cut(route.good))
    headers = draw(st.dictionaries(st.sampled_from(HEADER_NAMES), HEADER_BYTES, max_size=3))
    query = draw(QUERIES)
    return Shot(route, method, f"{path}?{query}", body, tuple(({JSON_HEADER[0]: JSON_HEADER[1]} | headers).items()))


def bodies(good: Mapping[str, Any], fields: tuple[str, ...]) -> st.SearchStrategy[dict[str, Any]]:
    """``good`` with up to three fields, some of them unknown, that hold whatever there is."""
    names = st.lists(st.sampled_from(fields) | TEXTS, max_size=3, unique=True)
    others = names.flatmap(lambda names: st.fixed_dictionaries({name: _value(name) for name in names}))
    return others.map(lambda others: dict(good) | others)


def _value(name: str) -> st.SearchStrategy[Any]:
    return LIKELY.get(name, NUMBERS) | VALUES


def cut(good: Mapping[str, Any]) -> st.SearchStrategy[bytes]:
    raw = json.dumps(good).encode()
    return st.integers(0, len(raw)).map(lambda end: raw[:end])


async def send(shot: Shot) -> Answer:
    """Return the whole response, read with the messages that Daphne would send."""
    path, _, query = shot.path.partition("?")
    headers = dict([(b"host", b"testserver"), (b"content-length", str(len(shot.body)).encode()), *shot.headers])
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": shot.method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": list(headers.items()),
        "client": ["127.0.0.1", 1],
        "server": ["127.0.0.1", 8001],
    }
    sent_messages: list[dict[str, Any]] = []
    incoming = iter([{"type": "http.request", "body": shot.body}])

    async def receive() -> dict[str, Any]:
        event = next(incoming, None)
        if event is None:
            await asyncio.Event().wait()  # the client does not disconnect
        return event or {}

    async def say(event: dict[str, Any]) -> None:
        sent_messages.append(event)

    async with asyncio.timeout(PATIENCE_SECS):
        await application(scope, receive, say)
    start, *rest = sent_messages
    response_headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in start["headers"]}
    return Answer(start["status"], response_headers, b"".join(event.get("body", b"") for event in rest))


FRAMES = (
    st.binary(max_size=60)
    | TEXTS
    | VALUES.map(json.dumps)
    | bodies({"type": "chat"} | ASKED, ("type", "request_id", "idempotency_key", *CHAT_FIELDS)).map(json.dumps)
    | bodies({"type": "resume", "generation_id": NOBODY}, ("generation_id", "after", "request_id")).map(json.dumps)
    | bodies({"type": "cancel", "generation_id": NOBODY}, ("generation_id", "request_id")).map(json.dumps)
)


class Socket:
    """A WebSocket over which frames are sent one after another."""

    def __init__(self) -> None:
        headers = [(b"host", b"testserver"), (b"origin", b"http://testserver")]
        self._communicator = WebsocketCommunicator(application, "/ws/chat", headers=headers)
        self._communicator.scope["client"] = ["127.0.0.1", 1]

    async def open(self) -> None:
        is_open, _ = await self._communicator.connect(timeout=PATIENCE_SECS)
        assert is_open

    async def ask(self, frame: str | bytes) -> dict[str, Any]:
        """The last line that the frame is answered with."""
        # The server lets nothing through as text that is no UTF-8.
        sent = {"bytes": frame} if isinstance(frame, bytes) else {"text": frame.encode(errors="replace").decode()}
        await self._communicator.send_input({"type": "websocket.receive"} | sent)
        while not (line := await self._communicator.receive_json_from(timeout=PATIENCE_SECS))["done"]:
            pass
        return dict(line)

    async def close(self) -> None:
        await self._communicator.disconnect(timeout=PATIENCE_SECS)
