"""The end of a WebSocket's credentials: refused frames at once, a closed socket soon. Knows no frames.

Credentials that were withdrawn (logout, deactivation, a changed password, a revoked key) end the socket with its
answers. Those that only grew old take no new frame; running answers go on to their end, within MAX_OVERTIME_SECS.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from chat.access.authentication import Credentials
from chat.access.usage import count_request
from chat.errors import Unauthorized
from inference.runtime.threads import in_thread

log = logging.getLogger(__name__)

CHECK_SECS = 3.0  # between two looks at the credentials while an answer runs
OVERTIME_CHECK_SECS = 0.2
MAX_OVERTIME_SECS = 600.0


class CredentialWatch:
    """The credentials of one socket. ``is_busy``: whether an answer runs; ``notify`` is called at their expiry."""

    def __init__(
        self, credentials: Credentials, *, is_busy: Callable[[], bool], notify: Callable[[], Awaitable[None]]
    ) -> None:
        self._credentials = credentials
        self._is_busy = is_busy
        self._notify = notify
        self.is_withdrawn = False

    async def check(self) -> None:
        """Count a new frame as a request. Raises Unauthorized, TooManyRequests, Unavailable unless it may be served."""
        if self._overtime_secs() > 0:
            raise Unauthorized("the credentials of this socket have expired; connect again", code="token_expired")
        await self._check_withdrawal()
        await in_thread(count_request, self._credentials.caller)

    async def until_ended(self) -> None:
        """Return when the socket is to be closed."""
        is_notified = False
        while self._overtime_secs() < (MAX_OVERTIME_SECS if self._is_busy() else 0.0):
            if self._overtime_secs() >= 0 and not is_notified:
                is_notified = True
                await self._notify()
            if self._is_busy() and await self._is_ended():
                return
            await asyncio.sleep(self._pause_secs())

    async def _is_ended(self) -> bool:
        try:
            await self._check_withdrawal()
        except Unauthorized:
            return True
        except Exception as error:  # noqa: BLE001  a database that is away ends no answer
            log.warning("credentials of a socket not checked error=%s", error)
        return False

    async def _check_withdrawal(self) -> None:
        if self._credentials.check is None:
            return
        try:
            await in_thread(self._credentials.check)
        except Unauthorized:
            self.is_withdrawn = True
            raise

    def _overtime_secs(self) -> float:
        """Seconds since the credentials expired, negative before."""
        expires_at = self._credentials.expires_at
        return -CHECK_SECS if expires_at is None else time.time() - expires_at

    def _pause_secs(self) -> float:
        overtime_secs = self._overtime_secs()
        return OVERTIME_CHECK_SECS if overtime_secs >= 0 else min(CHECK_SECS, -overtime_secs)
