"""A client's view of a running service: users, streams and sockets."""

import json
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import jwt
import websockets

from tests.live_stack import LiveStack

Line = dict[str, Any]
PASSWORD = "a rather long password"


def say(text: str, **more: object) -> dict[str, object]:
    """A body that the scripted model answers with ``text``."""
    return {"messages": [{"role": "user", "content": f"[[say: {text}]]"}]} | more


def count(n: int, *, delay_ms: int = 0, **more: object) -> dict[str, object]:
    """A body that is answered with the numbers up to n, each step taking its time."""
    return {"messages": [{"role": "user", "content": f"[[delay: {delay_ms}]] [[count: {n}]]"}]} | more


def data_lines(response: httpx.Response) -> Iterator[Line]:
    """The objects of an event stream, each with the id of its event checked."""
    event_id = ""
    for line in response.iter_lines():
        if line.startswith("id: "):
            event_id = line[4:]
        elif line.startswith("data: "):
            data: Line = json.loads(line[6:])
            assert str(data["id"]) == event_id
            yield data


def read_stream(
    client: httpx.Client, path: str, body: object = None, headers: dict[str, str] | None = None
) -> list[Line]:
    """A whole stream: POST with a body, GET without."""
    method = "GET" if body is None else "POST"
    with client.stream(method, path, json=body, headers=headers) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["Content-Type"] == "text/event-stream"
        return list(data_lines(response))


def text_of(lines: list[Line]) -> str:
    return "".join(line["token"] for line in lines)


def assert_one_end(lines: list[Line]) -> None:
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]


async def frames(socket: websockets.ClientConnection) -> AsyncIterator[Line]:
    """Frames of a socket until an answer or an error ends."""
    while True:
        frame: Line = json.loads(await socket.recv())
        yield frame
        if frame["done"]:
            return


async def answer_over(socket: websockets.ClientConnection, body: Mapping[str, object]) -> list[Line]:
    await socket.send(json.dumps(body))
    return [frame async for frame in frames(socket)]


@dataclass(frozen=True)
class LiveUser:
    """A user with an account in a running service."""

    name: str
    access: str
    signing_key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access}"}

    def access_with(self, **claims: object) -> str:
        """The access token with other claims, signed as the service signs."""
        known = jwt.decode(self.access, options={"verify_signature": False})
        return jwt.encode(known | claims, self.signing_key, algorithm="HS256")


def make_users(stack: LiveStack, *names: str) -> list[LiveUser]:
    """Accounts in a running service, logged in.

    Each name gets an ending of its own: tests share the service, and two of them may think of one name.
    """
    made_names = [f"{name}-{secrets.token_hex(4)}" for name in names]
    calls = "; ".join(f"User.objects.create_user({name!r}, password={PASSWORD!r})" for name in made_names)
    made = stack.run("shell", "-c", f"from django.contrib.auth.models import User; {calls}")
    assert made.returncode == 0, made.stderr
    key = (stack.data_dir / "jwt_signing_key").read_text().strip()
    users = []
    for name in made_names:
        pair = httpx.post(f"{stack.url}/api/token/", json={"username": name, "password": PASSWORD}, timeout=30)
        users.append(LiveUser(name, pair.json()["access"], key))
    return users
