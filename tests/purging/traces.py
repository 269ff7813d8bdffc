"""Looks for a text and its tokens wherever a running service could have left them."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import httpx
import msgspec
import numpy as np
import redis

from gemma_project.broker_url import socket_url, valkey_socket
from inference.engine.backends.fake import FakeVocabulary
from inference.engine.backends.vocabulary import Vocabulary
from tests.live_stack import LiveStack

PATIENCE_SECS = 40.0
PADDING = "It is written here at some length, so that its state is worth a file of its own. "


def needles(secret: str, vocabulary: Vocabulary | None = None) -> list[bytes]:
    """The text; its ids as rows and files keep them (int32, little endian); and as the fake model's states do."""
    ids = (vocabulary or FakeVocabulary()).encode(secret, special=False)
    # A word's first and last token depend on what stands around it.
    inner = ids if vocabulary is None else ids[1:-1]
    assert len(inner) >= 4
    packed = msgspec.msgpack.encode(inner)[1 if len(inner) < 16 else 3 :]
    texts = [secret.encode(), secret.lower().encode()]
    return [*texts, np.array(inner, dtype="<i4").tobytes(), *([packed] if vocabulary is None else [])]


class Traces:
    """``wanted`` are looked for in the data directory, the folder of moving states and Redis."""

    def __init__(self, stack: LiveStack, *wanted: bytes, generation_ids: Iterable[str] = ()) -> None:
        self._stack = stack
        # Tokens are one entry each in a log: the log itself is what may not be there.
        self._wanted = [*wanted, *(f"gemma:log:{each}".encode() for each in generation_ids)]
        self._redis = redis.Redis.from_url(socket_url(valkey_socket(stack.data_dir)))

    def find(self) -> set[str]:
        """Names of places, relative to the data directory."""
        folders = [self._stack.data_dir, Path(self._stack.environment.get("GEMMA_SHM_DIR", self._stack.data_dir))]
        found = set()
        for path in {path for folder in folders for path in folder.rglob("*") if path.is_file()}:
            try:
                data = path.read_bytes()
            except OSError:
                continue  # gone meanwhile
            if self._holds(data):
                found.add(str(path.relative_to(self._stack.data_dir)) if folders[0] in path.parents else str(path))
        for key in self._redis.scan_iter(count=1000):
            if self._holds(key) or self._holds(self._redis.dump(key) or b""):
                found.add(f"redis {key!r}")
        return found

    def _holds(self, data: bytes) -> bool:
        return any(each in data for each in self._wanted)

    def wait_until_gone(self) -> None:
        assert waited(lambda: not self.find()), f"still there: {self.find()}\n{self._stack.output[-3000:]}"

    def wait_until_in(self, part: str) -> None:
        """The search really finds what lies there."""
        assert waited(lambda: any(part in each for each in self.find())), f"not in {part}: {self.find()}"


def waited(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_SECS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def chat(stack: LiveStack, text: str, **options: object) -> dict[str, object]:
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 40, **options}
    response = httpx.post(f"{stack.url}/chat", json=body, timeout=120)
    assert response.status_code == 200, response.text
    answer: dict[str, object] = response.json()
    return answer


def delete(stack: LiveStack, path: str) -> None:
    response = httpx.delete(f"{stack.url}/{path}", timeout=30)
    assert response.status_code < 300, response.text
