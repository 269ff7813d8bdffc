"""Abort of blocking work whose client has left: a flag of the request, checked at the safe points of long work.

Contexts are copied into tasks and threads, so that the flag arrives there without being passed on.
"""

import threading
from contextvars import ContextVar

_flag: ContextVar[threading.Event | None] = ContextVar("abort_flag", default=None)


class WorkAborted(Exception):
    """The client has left; nothing was stored."""


def new_flag() -> threading.Event:
    """Return a flag that ``check`` looks at in everything started from here on."""
    flag = threading.Event()
    _flag.set(flag)
    return flag


def check() -> None:
    """Raise WorkAborted once the flag is set; without a flag work is never aborted."""
    flag = _flag.get()
    if flag is not None and flag.is_set():
        raise WorkAborted
