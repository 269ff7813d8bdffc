"""Authorization of tenants at the built-in coordinator, and of callers that move the model. Knows no leases."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Concatenate, ParamSpec

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from chat.access.authentication import caller_of
from chat.access.callers import Caller
from chat.api.turn_requests import View, with_head, wrong_method
from chat.errors import Forbidden, NotFound, Unauthorized
from chat.streaming.background import in_thread
from inference.auth import service_token
from inference.errors import ServiceTokenRefused

P = ParamSpec("P")
TenantView = Callable[Concatenate[HttpRequest, P], Awaitable[HttpResponseBase]]
TENANTS = frozenset({"gateway", "gemma-service", "ml-service", "transcription-service"})


def for_tenants(*methods: str) -> Callable[[TenantView[P]], View[P]]:
    """An asynchronous view of the coordinator: for services, staff, and this machine while no keys are configured."""

    def decorate(view: TenantView[P]) -> View[P]:
        @csrf_exempt  # for sessions, which alone need it, caller_of looks at the token
        @wraps(view)
        async def answer(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            if request.method not in with_head(methods):
                return wrong_method(methods)
            if settings.GPU_COORDINATOR_URL is not None:
                raise NotFound("the GPU is lent by another service", code="no_coordinator")
            await in_thread(check_tenant, request)
            return await view(request, *args, **kwargs)

        return answer

    return decorate


def check_tenant(request: HttpRequest) -> None:
    """Raises Unauthorized or Forbidden. More services may use the GPU than may chat."""
    service = request.headers.get("x-service-token")
    if service is not None:
        try:
            service_token.verify(service, allowed=TENANTS)
        except ServiceTokenRefused as error:
            raise Unauthorized(str(error), code=error.code) from error
        return
    check_operator(caller_of(request))


def check_operator(caller: Caller) -> None:
    """Raises Forbidden for users that only chat, Unauthorized for anonymous callers once keys are configured."""
    if caller.is_service:
        return
    if caller.user is not None and not getattr(caller.user, "is_staff", False):
        raise Forbidden("only services and staff may do this")
    if caller.user is None and service_token.has_keys():
        raise Unauthorized("send a service token as X-Service-Token")
