"""Rules for the address and the web page of a request: which of them may act without credentials.

Shared by HTTP and WebSocket, which pass plain headers.
"""

from collections.abc import Mapping
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest
from django.http.request import split_domain_port, validate_host
from django.utils.http import is_same_domain

from chat.access.client_address import parsed_address

# A request with one of these headers came through a proxy: its peer's address is not the caller's.
FORWARDING_HEADERS = frozenset({"forwarded", "via", "x-original-host", "x-proxy-id", "cdn-loop", "cf-ray", "x-host"})
FORWARDING_HEADERS |= {"x-scheme", "x-varnish", "x-original-url", "x-rewrite-url", "front-end-https", "x-request-start"}
FORWARDING_STARTS = ("x-forwarded", "x-original-forwarded", "x-envoy-", "x-azure-", "x-appengine-", "x-amz")
FORWARDING_ENDS = ("-ip", "clientip", "socketip", "-ipv6", "-ip-address", "remote-addr")
# Of a caller without credentials. nginx forwards with 1.0 and adds nothing, as older proxies do.
DIRECT_HTTP_VERSION = "1.1"


def is_forwarded(headers: Mapping[str, str], http_version: str = DIRECT_HTTP_VERSION) -> bool:
    """Return whether a request shows that it came through a proxy."""
    names = [name.lower() for name in headers]
    return http_version != DIRECT_HTTP_VERSION or any(
        name in FORWARDING_HEADERS or name.startswith(FORWARDING_STARTS) or name.endswith(FORWARDING_ENDS)
        for name in names
    )


def http_version_of(request: HttpRequest) -> str:
    scope: Mapping[str, str] = getattr(request, "scope", {})
    return scope.get("http_version", DIRECT_HTTP_VERSION)


def is_anonymous_network(
    address: str | None, headers: Mapping[str, str], http_version: str = DIRECT_HTTP_VERSION
) -> bool:
    """Return whether a peer of this address needs no credentials."""
    if address is None or is_forwarded(headers, http_version):
        return False
    ip = parsed_address(address)
    return ip is not None and any(ip in network for network in settings.ANONYMOUS_NETWORKS)


def is_served_host(host: str) -> bool:
    """Return whether the Host header names this service, which no page does that rebinds its own name to it."""
    # Django checks this for HTTP only.
    domain, _ = split_domain_port(host)
    return bool(domain) and validate_host(domain, settings.ALLOWED_HOSTS)


def is_own_origin(origin: str, host: str) -> bool:
    """Return whether a web page of this origin is the service's own or named by CSRF_TRUSTED_ORIGINS.

    The scheme is not compared: behind a proxy that ends TLS the request is http where the page is https.
    """
    try:
        page = urlsplit(origin.lower())
    except ValueError:
        return False
    if page.scheme not in ("http", "https") or not page.netloc:
        return False
    # A page of this service has the host and port that the request was sent to.
    if page.netloc == host.lower():
        return True
    trusted_origins = [urlsplit(origin.lower()) for origin in settings.CSRF_TRUSTED_ORIGINS]
    return any(
        page.scheme == trusted.scheme and is_same_domain(page.netloc, trusted.netloc.removeprefix("*"))
        for trusted in trusted_origins
    )


def is_listed_origin(origin: str, host: str) -> bool:
    """Return whether a page of another host may call the API, for which it needs a token."""
    return origin.lower() in settings.CORS_ALLOWED_ORIGINS and origin.lower().partition("://")[2] != host.lower()
