"""GET /metrics: figures for Prometheus, for this machine, staff and bearers of METRICS_TOKEN."""

import hmac

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from chat.access.authentication import caller_of
from chat.access.callers import Caller
from chat.access.client_address import parsed_address
from chat.api.middleware import request_metrics
from chat.errors import Forbidden
from chat.streaming.background import in_thread
from inference.monitoring.metrics import registry


@csrf_exempt
@require_safe
async def metrics(request: HttpRequest) -> HttpResponse:
    return await in_thread(_metrics, request)


def _metrics(request: HttpRequest) -> HttpResponse:
    check_may_read(request)
    text = generate_latest(request_metrics.REGISTRY) + generate_latest(registry())
    return HttpResponse(text, content_type=CONTENT_TYPE_LATEST, headers={"Cache-Control": "no-store"})


def check_may_read(request: HttpRequest) -> None:
    """Raises Unauthorized or Forbidden for a caller that is none of the three."""
    scheme, _, token = request.headers.get("Authorization", "").strip().partition(" ")
    expected = settings.METRICS_TOKEN or ""
    if expected and scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), expected.encode()):
        return
    caller = caller_of(request)
    peer = parsed_address(request.META.get("REMOTE_ADDR") or "")
    # ANONYMOUS_NETWORKS may be wider than this machine.
    is_this_machine = caller == Caller.local() and peer is not None and peer.is_loopback
    if is_this_machine or getattr(caller.user, "is_staff", False):
        return
    raise Forbidden("metrics are for staff, this machine, and bearers of METRICS_TOKEN", code="metrics_refused")
