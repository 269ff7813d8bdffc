"""Client of a streamed answer: arrival times of its tokens, and the usage that the server reports.

Two servers are supported, this service and llama-server, by their own interfaces or by OpenAI's; all give the same
``Answer``.
"""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx


@dataclass
class Answer:
    """Times are monotonic seconds; ``n_computed`` is how many prompt tokens were really computed.

    An answer of nothing that shows, white space say, has its end for its first token.
    """

    began: float
    times: list[float] = field(default_factory=list)
    text: str = ""
    n_prompt: int = 0
    n_computed: int = 0

    @property
    def first_token_secs(self) -> float:
        return self.times[0] - self.began

    @property
    def longest_gap_secs(self) -> float:
        return max((b - a for a, b in itertools.pairwise(self.times)), default=0.0)


@dataclass(frozen=True)
class Turn:
    """A question; ``history`` alternates question and answer, oldest first, and ends with an answer or is empty."""

    question: str
    history: tuple[str, ...] = ()
    n_out: int = 48
    cache: bool = True
    keep: bool = False


class Server(Protocol):
    """A server under test; one client per run, so that connections are not measured."""

    name: str

    async def ask(self, turn: Turn) -> Answer: ...


async def data_lines(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    async with client.stream("POST", path, json=body) as response:
        if response.status_code != httpx.codes.OK:
            raise RuntimeError(f"{path} answered {response.status_code}: {(await response.aread()).decode()[:500]}")
        async for line in response.aiter_lines():
            if line.startswith("data: ") and line != "data: [DONE]":
                yield json.loads(line[6:])


def chat_body(turn: Turn) -> dict[str, Any]:
    """Return the fields that ``/chat/stream`` and ``/v1/chat/completions`` share."""
    roles = itertools.cycle(("user", "assistant"))
    messages = [{"role": role, "content": text} for role, text in zip(roles, (*turn.history, turn.question))]  # noqa: B905
    return {
        "messages": [{"role": "system", "content": "Go on."}, *messages],
        "max_tokens": turn.n_out,
        "temperature": 0,
        "ignore_eos": True,
        "cache_prompt": turn.cache,
        "store": turn.keep,
    }


@dataclass
class OurService:
    """``POST /chat/stream``: the whole stack, from HTTP to the database."""

    client: httpx.AsyncClient
    name: str = "ours"

    async def ask(self, turn: Turn) -> Answer:
        body = chat_body(turn) | {"stop": []}
        answer = Answer(began=time.monotonic())
        async for line in data_lines(self.client, "/chat/stream", body):
            if line.get("error"):
                raise RuntimeError(f"the stream failed: {line['error']}")
            if line["token"] or (line["done"] and not answer.times):
                answer.times.append(time.monotonic())
                answer.text += line["token"]
            if line["done"]:
                usage = line["usage"]
                answer.n_prompt = usage["prompt_tokens"]
                answer.n_computed = usage["prompt_tokens"] - usage["cached_tokens"]
        return answer


@dataclass
class LlamaServer:
    """llama-server's ``POST /completion`` with the transcript format that our service gives this base model."""

    client: httpx.AsyncClient
    name: str = "llama-server"

    async def ask(self, turn: Turn) -> Answer:
        names = itertools.cycle(("User: ", "Assistant: "))
        texts = [name + text for name, text in zip(names, (*turn.history, turn.question))]  # noqa: B905
        body = {
            "prompt": "\n".join(["Go on.\n", *texts, "Assistant:"]),
            "n_predict": turn.n_out,
            "temperature": 0,
            "ignore_eos": True,
            "cache_prompt": turn.cache,
            "stream": True,
        }
        answer = Answer(began=time.monotonic())
        async for line in data_lines(self.client, "/completion", body):
            if line.get("content") or (line.get("stop") and not answer.times):
                answer.times.append(time.monotonic())
                answer.text += line.get("content", "")
            if line.get("stop"):
                answer.n_computed = line["timings"]["prompt_n"]
                answer.n_prompt = line["tokens_evaluated"]
        return answer


@dataclass
class ChatCompletions:
    """``POST /v1/chat/completions``, of either server. ``store`` is this service's; llama-server ignores it."""

    client: httpx.AsyncClient
    name: str = "chat completions"

    async def ask(self, turn: Turn) -> Answer:
        body = chat_body(turn) | {"stream": True, "stream_options": {"include_usage": True}}
        answer = Answer(began=time.monotonic())
        async for chunk in data_lines(self.client, "/v1/chat/completions", body):
            if "error" in chunk:
                raise RuntimeError(f"the stream failed: {chunk['error']}")
            text = "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
            if text or (chunk.get("usage") and not answer.times):
                answer.times.append(time.monotonic())
                answer.text += text
            if usage := chunk.get("usage"):
                answer.n_prompt = usage["prompt_tokens"]
                answer.n_computed = chunk["timings"]["prompt_n"]
        return answer


async def ask_all(server: Server, turns: list[Turn]) -> tuple[list[Answer], float]:
    """All turns at once; with the seconds until the last one was over."""
    began = time.monotonic()
    answers = await asyncio.gather(*(server.ask(turn) for turn in turns))
    return list(answers), time.monotonic() - began
