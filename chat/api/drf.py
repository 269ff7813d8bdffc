"""DRF with this service's credentials, parser and errors; every answer is JSON, whatever Accept says."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO, Any, cast

from django.conf import settings
from django.http import HttpRequest, HttpResponseNotAllowed
from django.http.response import HttpResponseBase
from rest_framework.authentication import BaseAuthentication
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from chat.access.authentication import ApiAuthentication
from chat.api.body_parsing import JSON_TYPE, json_object, read_body
from chat.schemas.error_bodies import as_chat_error, error_object, headers_of
from compat.drf_requests import django_request


class JsonParser(BaseParser):
    media_type = JSON_TYPE

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        request = cast(Request, (parser_context or {})["request"])
        return json_object(read_body(django_request(request), stream, settings.REQUEST_MAX_BYTES))


class OnlyJson(BaseContentNegotiation):
    """DRF's own reads ``?format=`` as a choice of renderers, which is ours for the export, and answers 406."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser | None:
        # Parameters such as charset do not choose a parser.
        content_type = (request.content_type or "").partition(";")[0].strip().lower()
        return next((parser for parser in parsers if parser.media_type == content_type), None)

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        return next(iter(renderers)), JSON_TYPE


class JsonApi(APIView):
    """Base of all DRF views here."""

    authentication_classes: Sequence[type[BaseAuthentication]] = (ApiAuthentication,)
    permission_classes = ()
    parser_classes = (JsonParser,)
    renderer_classes = (JSONRenderer,)
    content_negotiation_class = OnlyJson

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:  # noqa: ANN401  DRF's own
        if request.method == "OPTIONS":  # the middleware's answer: methods need no credentials
            return HttpResponseNotAllowed([method for method in self.allowed_methods if method != "OPTIONS"])
        return super().dispatch(request, *args, **kwargs)

    def finalize_response(self, request: Request, response: Response, *args: Any, **kwargs: Any) -> Response:  # noqa: ANN401
        final = super().finalize_response(request, response, *args, **kwargs)
        # View, request and response refer to each other, and would keep the body until the next full collection.
        if isinstance(final, Response):
            final.add_post_render_callback(lambda rendered: release(request, rendered))
        return final

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], Response | None]:
        return error_response

    def initialize_request(self, request: HttpRequest, *args: object, **kwargs: object) -> Request:
        # DRF takes a body without an announced length, as chunked requests have, for none at all.
        if "CONTENT_LENGTH" not in request.META:
            request.META["CONTENT_LENGTH"] = str(len(request.body))
        return super().initialize_request(request, *args, **kwargs)


def error_response(error: Exception, context: dict[str, Any]) -> Response:
    """Return the body of an exception, as DRF's setting EXCEPTION_HANDLER has it."""
    chat_error = as_chat_error(error)
    body = {"error": error_object(chat_error)}
    return Response(body, status=chat_error.status, headers=headers_of(chat_error))


def release(request: Request, response: Response) -> None:
    """Drop the references of a rendered response to its request."""
    response.renderer_context = {}  # type: ignore[attr-defined]
    request.parser_context = {}
