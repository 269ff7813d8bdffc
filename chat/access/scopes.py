"""Scopes of API keys: the routes that each opens. A route that is in no set here is closed to every key."""

from collections.abc import Collection

from chat.enums import KeyScope
from chat.errors import Forbidden

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

CHAT_ROUTES = frozenset(
    {
        "analyze",
        "anthropic-count-tokens",
        "anthropic-messages",
        "apply-template",
        "chat",
        "chat-rag",
        "chat-resume",
        "chat-stream",
        "conversation-detail",
        "conversation-export",
        "conversation-list",
        "conversation-messages",
        "conversation-summaries",
        "conversation-versions",
        "detokenize",
        "generate",
        "generation-cancel",
        "model-settings-update",
        "openai-chat",
        "openai-completions",
        "openai-embeddings",
        "openai-response",
        "openai-response-cancel",
        "openai-response-items",
        "openai-responses",
        "score-chunk",
        "tokenize",
        "ws-chat",
    }
)
MEMORY_ROUTES = frozenset(
    {
        "emotions-analytics",
        "emotions-moments",
        "emotions-stats",
        "memory-add",
        "memory-delete",
        "memory-emotions",
        "memory-index",
        "memory-list",
        "memory-search",
        "memory-search-old",
        "memory-search-semantic",
        "memory-stats",
        "transcript",
        "transcripts-count",
        "transcripts-query",
        "transcripts-recent",
        "transcripts-speakers",
        "transcripts-time-range",
    }
)
OPERATOR_ROUTES = frozenset(
    {
        "card-move-to-cpu",
        "card-release-session",
        "card-warmup",
        "gpu-acquire",
        "gpu-force-reset",
        "gpu-old-release",
        "gpu-old-request",
        "gpu-old-status",
        "gpu-release",
        "gpu-renew",
        "gpu-state",
        "metrics",
    }
)
# Of the service itself: open to a key of any scope.
COMMON_ROUTES = frozenset({"model-list", "model-settings", "openai-model", "openai-models", "service-stats", "usage"})
# Reads with a body.
READING_ROUTES = frozenset(
    {
        "anthropic-count-tokens",
        "apply-template",
        "detokenize",
        "memory-search",
        "memory-search-old",
        "memory-search-semantic",
        "tokenize",
        "transcripts-count",
        "transcripts-query",
    }
)


def permits(scopes: Collection[KeyScope], *, route: str, method: str) -> bool:
    """Return whether a key with these scopes may use the route."""
    reads = method in SAFE_METHODS or route in READING_ROUTES
    return (
        route in COMMON_ROUTES
        or (KeyScope.CHAT in scopes and route in CHAT_ROUTES)
        or (KeyScope.MEMORIES in scopes and route in MEMORY_ROUTES)
        or (KeyScope.READ in scopes and reads and route in CHAT_ROUTES | MEMORY_ROUTES)
        or (KeyScope.OPERATE in scopes and route in OPERATOR_ROUTES)
    )


def check_scopes(scopes: Collection[KeyScope] | None, *, route: str, method: str) -> None:
    """Raises Forbidden when the caller's key does not permit the route; ``scopes`` None: the caller shows no key."""
    if scopes is not None and not permits(scopes, route=route, method=method):
        names = ", ".join(sorted(scopes)) or "none"
        raise Forbidden(f"the scopes of this API key ({names}) do not permit this", code="insufficient_scope")
