"""The benchmark's measurements of a streamed answer."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from bench.streams import Answer, ChatCompletions, LlamaServer, OurService, Turn

USAGE = {"prompt_tokens": 9, "cached_tokens": 4}
OUR_END = {"id": 2, "token": "", "done": True, "usage": USAGE}
CHAT_END = {"choices": [], "usage": USAGE, "timings": {"prompt_n": 5}}
THEIR_END = {"content": "", "stop": True, "timings": {"prompt_n": 5}, "tokens_evaluated": 9}


def chunk(delta: dict[str, Any]) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta}], "usage": None}


def answer_of(server: type[OurService | LlamaServer | ChatCompletions], lines: list[dict[str, Any]]) -> Answer:
    body = "".join(f"data: {json.dumps(line)}\n\n" for line in lines)
    transport = httpx.MockTransport(lambda _: httpx.Response(200, text=body))

    async def ask() -> Answer:
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await server(client).ask(Turn("Hello?"))

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("server", "lines"),
    [
        (
            OurService,
            [
                {"id": 0, "token": "", "done": False, "status": {"state": "prefill", "progress": 1.0}},
                {"id": 1, "token": "Good", "done": False},
                {"id": 2, "token": " day", "done": False},
                OUR_END,
            ],
        ),
        (LlamaServer, [{"content": "Good", "stop": False}, {"content": " day", "stop": False}, THEIR_END]),
        (
            ChatCompletions,
            [
                chunk({"role": "assistant", "content": None}),
                chunk({"content": "Good"}),
                chunk({"content": " day"}),
                chunk({}),
                CHAT_END,
            ],
        ),
    ],
)
def test_each_token_with_text_has_its_time(
    server: type[OurService | LlamaServer | ChatCompletions], lines: list[dict[str, Any]]
) -> None:
    answer = answer_of(server, lines)
    assert answer.text == "Good day"
    assert len(answer.times) == 2
    assert answer.began <= answer.times[0] <= answer.times[1]
    assert (answer.n_prompt, answer.n_computed) == (9, 5)


@pytest.mark.parametrize(
    ("server", "lines"),
    [
        (OurService, [{"id": 1, "token": "", "done": False}, OUR_END]),
        (LlamaServer, [{"content": "", "stop": False}, THEIR_END]),
        (ChatCompletions, [chunk({"content": ""}), CHAT_END]),
    ],
)
def test_an_answer_without_text_has_a_first_token_too(
    server: type[OurService | LlamaServer | ChatCompletions], lines: list[dict[str, Any]]
) -> None:
    """A model may answer white space alone; that ended a whole run with an IndexError."""
    answer = answer_of(server, lines)
    assert answer.text == ""
    assert answer.first_token_secs > 0
    assert answer.longest_gap_secs == 0
