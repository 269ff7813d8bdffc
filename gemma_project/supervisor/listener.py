"""The listening socket. The supervisor holds it, so that clients stay connected while the web process restarts."""

import errno
import socket

from gemma_project.supervisor.errors import AddressInUse

BACKLOG = 128


def open_listener(host: str, port: int) -> socket.socket:
    """Open a listening socket on the address; raises AddressInUse when it is taken, unknown or not allowed."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise AddressInUse(f"GEMMA_HOST={host!r} is not an address of this machine ({error})") from None
    try:
        # Connections of the last run that linger in TIME_WAIT must not block the next one.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            remedy = "stop the program that does, or set GEMMA_PORT to another port"
        elif error.errno == errno.EACCES:
            remedy = f"GEMMA_PORT={port} is reserved; set a port from 1024"
        else:
            remedy = f"set GEMMA_HOST={host!r} to an address of this machine, such as 127.0.0.1"
        raise AddressInUse(f"cannot listen on {host}:{port} ({error.strerror}); {remedy}") from None
    return listener


def reachable_url(host: str, port: int) -> str:
    """Return the URL under which this machine reaches the address."""
    if host in {"0.0.0.0", "::", ""}:  # noqa: S104  # nosec B104  # compared, not bound
        host = "127.0.0.1" if host != "::" else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
