"""Counters of this web process: requests by route, method and status, and the time until their response begins."""

import time

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from prometheus_client import CollectorRegistry, Counter, Histogram

REGISTRY = CollectorRegistry()
NO_ROUTE = "none"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SECS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

_requests = Counter(
    "gemma_http_requests", "Requests by route, method and status.", ["route", "method", "status"], registry=REGISTRY
)
_seconds = Histogram(
    "gemma_http_response_seconds",
    "Time until the response begins; a stream goes on after that.",
    ["route"],
    buckets=SECS,
    registry=REGISTRY,
)


def count_request(request: HttpRequest, response: HttpResponseBase, began: float) -> None:
    """Count a request that began at this time of the monotonic clock."""
    # Names of routes: a path holds ids, and unknown ones would be labels without end.
    route = request.resolver_match.view_name if request.resolver_match else NO_ROUTE
    method = request.method if request.method in METHODS else "other"
    _requests.labels(route, method, str(response.status_code)).inc()
    _seconds.labels(route).observe(time.monotonic() - began)
