"""The address that stands for a person: that of the peer, or the one that a trusted proxy reports.

Used for counting only; ``origins`` decides who needs no credentials, and takes no proxy's word for it.
"""

import ipaddress
from collections.abc import Mapping

from django.conf import settings
from django.http import HttpRequest

# Peers of a unix socket have no address.
NO_ADDRESS = "socket"
_IPV6_HOME_BITS = 64  # one household has all addresses of such a network


def client_address(request: HttpRequest) -> str:
    """Return the caller's address, IPv6 as its /64 network."""
    return address_of(request.META.get("REMOTE_ADDR"), request.headers)


def address_of(peer: str | None, headers: Mapping[str, str]) -> str:
    """Return the last address before the proxies of TRUSTED_PROXIES; entries further left may be forged."""
    hops = [*headers.get("X-Forwarded-For", "").split(","), peer or ""]
    address = NO_ADDRESS
    for hop in reversed(hops):
        ip = parsed_address(hop)
        if ip is None:
            break
        address = _as_text(ip)
        if not any(ip in network for network in settings.TRUSTED_PROXIES):
            break
    return address


def reported_address(headers: Mapping[str, str]) -> str:
    """Return the last address that the nearest proxy reports, trusted or not; empty without one."""
    ip = parsed_address(headers.get("X-Forwarded-For", "").rpartition(",")[2])
    return _as_text(ip) if ip is not None else ""


def parsed_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return an address without its zone; None for a text that is none, as of a peer at a unix socket."""
    try:
        ip = ipaddress.ip_address(text.strip().partition("%")[0])
    except ValueError:
        return None
    # A socket that listens on both families shows IPv4 peers as ::ffff:a.b.c.d.
    return (ip.ipv4_mapped or ip) if isinstance(ip, ipaddress.IPv6Address) else ip


def _as_text(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    return str(ipaddress.ip_network((ip, _IPV6_HOME_BITS), strict=False).network_address)
