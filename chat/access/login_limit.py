"""Limit of failed logins: counters in Redis, compared and incremented in one atomic step.

A login that succeeds gives its attempt back, so that only failures count.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import redis
from django.http import HttpRequest

from chat.access.client_address import client_address, reported_address
from chat.errors import TooManyRequests, Unavailable
from inference.runtime.redis_client import shared_client

log = logging.getLogger(__name__)

WINDOW_SECS = 60
MAX_PER_NAME = 10  # failures of one address for one user name within the window
MAX_PER_ADDRESS = 60
_PREFIX = "login:"

# KEYS: counters; ARGV: window in ms, then one limit per counter. Returns ms to wait, 0 when let through. Compared
# and raised in one script, since parallel attempts would otherwise all read the same count.
_TAKE = """
for i, key in ipairs(KEYS) do
  if tonumber(redis.call('GET', key) or '0') >= tonumber(ARGV[i + 1]) then
    return math.max(redis.call('PTTL', key), 1)
  end
end
for i, key in ipairs(KEYS) do
  if redis.call('INCR', key) == 1 then redis.call('PEXPIRE', key, ARGV[1]) end
end
return 0
"""
_GIVE_BACK = """
for i, key in ipairs(KEYS) do
  if tonumber(redis.call('GET', key) or '0') > 0 then redis.call('DECR', key) end
end
"""


@contextmanager
def attempt(request: HttpRequest, username: str) -> Iterator[None]:
    """Count an attempt before its password is checked, and take it back when the body ends without an exception.

    Raises TooManyRequests; Unavailable without Redis.
    """
    address, behind = client_address(request), reported_address(request.headers)
    take(address, username, behind=behind)
    yield
    give_back(address, username, behind=behind)


def take(address: str, username: str, *, behind: str = "") -> None:
    """Count an attempt. Raises TooManyRequests; Unavailable without Redis.

    ``behind`` is the address that an unlisted proxy reports. It may be forged, and only keeps names apart: behind an
    honest proxy one guesser does not lock an account for all.
    """
    wait_ms = int(_run(_TAKE, address, username, behind, WINDOW_SECS * 1000, MAX_PER_NAME, MAX_PER_ADDRESS))
    if wait_ms:
        secs = -(-wait_ms // 1000)
        log.warning("login throttled address=%s", address)
        raise TooManyRequests(
            "there were too many failed logins; wait before the next", code="login_throttled", retry_after_secs=secs
        )


def give_back(address: str, username: str, *, behind: str = "") -> None:
    """Take back the attempt of a login that succeeded."""
    _run(_GIVE_BACK, address, username, behind)


def _run(script: str, address: str, username: str, behind: str, *values: int) -> int:
    name = f"{_PREFIX}name:{address}:{behind}:{username[:150].casefold()}"
    keys = [name, f"{_PREFIX}address:{address}"]
    try:
        return int(shared_client().eval(script, len(keys), *keys, *values) or 0)  # type: ignore[no-untyped-call]
    except redis.RedisError as error:
        # Without the counters a password could be guessed at any speed.
        raise Unavailable(
            "logins cannot be limited now; try again", code="store_unavailable", retry_after_secs=5
        ) from error
