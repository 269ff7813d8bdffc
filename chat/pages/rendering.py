"""Rendering of a page: its language, its policy for the browser, and the headers that every page has."""

from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils import translation

# Scripts and styles are files of this service, and no text becomes markup but through DOMPurify's policy.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types dompurify",
    )
)
LANGUAGES = {"en": "English", "de": "Deutsch"}
DEFAULT_LANGUAGE = "en"


def page_response(
    request: HttpRequest, template: str, context: Mapping[str, Any] | None = None, *, status: int = 200
) -> HttpResponse:
    """Render a template in the language of the browser."""
    language = language_of(request)
    with translation.override(language):
        values = {"language": language, "languages": LANGUAGES, **(context or {})}
        text = render_to_string(template, values, request)
    headers = {
        "Content-Security-Policy": CONTENT_SECURITY_POLICY,
        # The page holds the CSRF token and the name of the user.
        "Cache-Control": "no-store",
        "Content-Language": language,
        "Vary": "Accept, Accept-Language, Cookie",
    }
    return HttpResponse(text, status=status, headers=headers)


def language_of(request: HttpRequest) -> str:
    """Return the language that the cookie or the browser asks for, English for any other."""
    language = translation.get_language_from_request(request).partition("-")[0]
    return language if language in LANGUAGES else DEFAULT_LANGUAGE


def wants_page(request: HttpRequest) -> bool:
    """Return whether the client prefers a page to JSON, as browsers do; a program that takes anything does not."""
    return request.get_preferred_type(["application/json", "text/html"]) == "text/html"
