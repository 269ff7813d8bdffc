"""Rules for the address and the web page of a request: which of them may act without credentials.

Shared by HTTP and WebSocket, which pass plain headers.
"""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from django.conf import settings
from django.http.request import split_domain_port, validate_host
from django.utils.http import is_same_domain

# A request with one of these came through a proxy: its peer's address is not the caller's.
FORWARDING_HEADERS = ("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded", "x-real-ip", "via")


def is_anonymous_network(address: str | None, headers: Mapping[str, str]) -> bool:
    """Return whether a peer of this address needs no credentials."""
    if address is None or any(name in headers for name in FORWARDING_HEADERS):
        return False
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    # A socket that listens on both families shows IPv4 peers as ::ffff:a.b.c.d.
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return any((mapped or ip) in network for network in settings.ANONYMOUS_NETWORKS)


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
