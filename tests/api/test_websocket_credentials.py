"""The end of a socket's credentials: what merely expired lets answers end, what was withdrawn ends them."""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest
import websockets
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.test import Client
from websockets import Subprotocol
from websockets.exceptions import ConnectionClosed

from chat.access import websocket_watch
from chat.access.api_keys import check_key, issue_key, revoke_key
from chat.access.authentication import Credentials
from chat.access.callers import Caller
from chat.access.websocket_authentication import check_session
from chat.access.websocket_watch import CredentialWatch
from chat.errors import Unauthorized
from tests.api.live import PASSWORD, LiveUser, answer_over, count, make_users, say
from tests.api.people import make_user
from tests.live_stack import LiveStack

ENDED = 4401


@pytest.fixture(scope="module")
def ann(fake_stack: LiveStack) -> LiveUser:
    return make_users(fake_stack, "ann-credentials")[0]


@pytest.fixture
def url(fake_stack: LiveStack) -> str:
    return fake_stack.url.replace("http", "ws") + "/ws/chat"


async def rest_of(socket: websockets.ClientConnection) -> list[dict[str, Any]]:
    """All frames until the service closes the connection."""
    frames = []
    with suppress(ConnectionClosed):
        while True:
            frames.append(json.loads(await socket.recv()))
    return frames


async def test_an_answer_outlives_its_token_and_no_new_one_begins(url: str, ann: LiveUser) -> None:
    token = ann.access_with(exp=int(time.time()) + 2)
    async with (
        websockets.connect(url, subprotocols=[Subprotocol("gemma.v1"), Subprotocol(token)]) as socket,
        asyncio.timeout(30),
    ):
        await socket.send(json.dumps({"type": "chat", "request_id": "long"} | count(40, delay_ms=100, store=False)))
        frames: list[dict[str, Any]] = []
        while not frames or frames[-1]["type"] != "notice":
            frames.append(json.loads(await socket.recv()))
        assert frames[-1]["notice"]["code"] == "token_expired"
        assert not frames[-1]["done"]
        await socket.send(json.dumps({"type": "chat", "request_id": "late"} | say("x", store=False)))
        frames += await rest_of(socket)
        assert socket.close_code == ENDED
    ends = {frame["request_id"]: frame for frame in frames if frame["done"]}
    assert ends["long"]["finish_reason"] == "stop"
    assert ends["late"]["error"]["code"] == "token_expired"


async def test_an_idle_socket_closes_when_its_token_expires(url: str, ann: LiveUser) -> None:
    headers = {"Authorization": f"Bearer {ann.access_with(exp=int(time.time()) + 2)}"}
    async with websockets.connect(url, additional_headers=headers) as socket, asyncio.timeout(20):
        await answer_over(socket, {"type": "chat"} | say("x", store=False))
        await rest_of(socket)
        assert socket.close_code == ENDED


async def test_a_logout_ends_a_running_answer_and_refuses_frames(url: str, fake_stack: LiveStack) -> None:
    login = {"username": make_users(fake_stack, "bob-credentials")[0].name, "password": PASSWORD}
    async with httpx.AsyncClient(base_url=fake_stack.url, timeout=30) as client:
        pair = (await client.post("/api/token/", json=login)).json()
        headers = {"Authorization": f"Bearer {pair['access']}"}
        async with (
            websockets.connect(url, additional_headers=headers) as running,
            websockets.connect(url, additional_headers=headers) as idle,
            asyncio.timeout(30),
        ):
            await running.send(json.dumps({"type": "chat"} | count(3000, delay_ms=100, store=False)))
            while json.loads(await running.recv())["type"] != "token":
                pass
            assert (await client.post("/api/token/logout/", json={"refresh": pair["refresh"]})).status_code == 204
            frames = await rest_of(running)
            assert running.close_code == ENDED
            assert not [frame for frame in frames if frame["type"] == "done"]
            (line,) = await answer_over(idle, {"type": "chat"} | say("x", store=False))
            assert line["error"]["code"] == "invalid_token"
            await rest_of(idle)
            assert idle.close_code == ENDED


class TestWatch:
    """The rules alone, with short times."""

    @pytest.fixture(autouse=True)
    def _quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(websocket_watch, "CHECK_SECS", 0.02)
        monkeypatch.setattr(websocket_watch, "OVERTIME_CHECK_SECS", 0.02)

    def watch(
        self, *, expires_in: float | None = None, check: Callable[[], object] | None = None, busy: bool = True
    ) -> tuple[CredentialWatch, list[str]]:
        notices: list[str] = []

        async def notify() -> None:
            notices.append("expired")

        expires_at = None if expires_in is None else time.time() + expires_in
        credentials = Credentials(Caller.local(), expires_at, check)
        return CredentialWatch(credentials, is_busy=lambda: busy, notify=notify), notices

    async def test_overtime_has_a_bound(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(websocket_watch, "MAX_OVERTIME_SECS", 0.2)
        watch, notices = self.watch(expires_in=0.05)
        await asyncio.wait_for(watch.until_ended(), 10)
        assert notices == ["expired"]

    async def test_without_an_answer_there_is_no_overtime(self) -> None:
        watch, notices = self.watch(expires_in=0.05, busy=False)
        await asyncio.wait_for(watch.until_ended(), 10)
        assert notices == []

    async def test_a_withdrawal_ends_an_answer(self) -> None:
        def withdrawn() -> None:
            raise Unauthorized("logged out")

        watch, _ = self.watch(check=withdrawn)
        await asyncio.wait_for(watch.until_ended(), 10)
        assert watch.is_withdrawn

    async def test_a_database_that_is_away_ends_nothing(self) -> None:
        def unavailable() -> None:
            raise OSError("gone")

        watch, _ = self.watch(check=unavailable)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(watch.until_ended(), 0.3)

    async def test_an_idle_socket_reads_no_database(self) -> None:
        calls: list[int] = []
        watch, _ = self.watch(check=lambda: calls.append(1), busy=False)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(watch.until_ended(), 0.2)
        assert calls == []


@pytest.mark.django_db
class TestChecks:
    """Each kind of credentials, looked at again."""

    def session_of(self, user: User) -> str:
        client = Client()
        client.force_login(user)
        return client.cookies["sessionid"].value

    def test_a_session(self) -> None:
        key = self.session_of(make_user())
        check_session(key)
        SessionStore(key).delete()
        with pytest.raises(Unauthorized):
            check_session(key)

    @pytest.mark.parametrize("key", [None, "", "x" * 32])
    def test_what_is_no_session(self, key: str | None) -> None:
        with pytest.raises(Unauthorized):
            check_session(key)

    def test_a_changed_password_and_a_deactivated_user(self) -> None:
        changes: list[dict[str, Any]] = [{"password": "!"}, {"is_active": False}]
        for number, change in enumerate(changes):
            user = make_user(f"ann{number}")
            key = self.session_of(user)
            User.objects.filter(pk=user.pk).update(**change)
            with pytest.raises(Unauthorized):
                check_session(key)

    def test_a_key(self) -> None:
        row = issue_key(make_user(), name="x").row
        check_key(row.pk)
        revoke_key(row)
        with pytest.raises(Unauthorized):
            check_key(row.pk)
        with pytest.raises(Unauthorized):
            check_key(0)
