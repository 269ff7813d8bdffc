"""The workloads of the comparison, each played against one server; the same code for both.

Each returns plain numbers of one round; medians, spread and ratios are the report's business.
"""

import asyncio
import statistics
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bench.prompts import text_of
from bench.streams import Answer, Server, Turn, ask_all

Restart = Callable[[], Awaitable[Server]]

PROMPT_WORDS = 112  # about 126 tokens with the roles around it
ANSWER_TOKENS = 48


@dataclass(frozen=True)
class Streams:
    """``n`` streams at once: total tokens per second and the median first token (ms)."""

    tokens_per_sec: float
    first_token_ms: float


async def streams(server: Server, n: int, *, seed: int) -> Streams:
    """Short prompts, nothing cached, all sent at the same moment."""
    turns = [Turn(text_of(PROMPT_WORDS, seed=seed * 1000 + i), n_out=ANSWER_TOKENS, cache=False) for i in range(n)]
    answers, secs = await ask_all(server, turns)
    firsts = [answer.first_token_secs * 1000 for answer in answers]
    return Streams(n * ANSWER_TOKENS / secs, statistics.median(firsts))


async def gap_while_a_long_prompt_arrives(server: Server, *, seed: int) -> float:
    """Longest gap (ms) between the tokens of a running answer while a 4,000-token prompt is read."""
    running = asyncio.create_task(server.ask(Turn(text_of(20, seed=seed), n_out=400, cache=False)))
    await asyncio.sleep(1.0)
    await server.ask(Turn(text_of(3950, seed=seed + 1), n_out=2, cache=False))
    answer: Answer = await running
    return answer.longest_gap_secs * 1000


async def common_beginning(server: Server, *, seed: int) -> float:
    """Seconds for 16 requests with the same prefix of 900 tokens, 16 tokens each, sent at the same moment."""
    prefix = text_of(880, seed=seed)
    turns = [Turn(f"{prefix}. Question {i}: {text_of(6, seed=seed + i)}", n_out=16) for i in range(16)]
    _, secs = await ask_all(server, turns)
    return secs


@dataclass(frozen=True)
class Conversations:
    """Seconds for all turns, and prompt tokens computed per prompt token that was new."""

    secs: float
    computed_per_new: float


async def conversations(server: Server, *, seed: int, restart: Restart | None = None) -> Conversations:
    """32 conversations of 4 turns, 900-token openings, 4 at a time, 16 tokens out; ``restart`` before turn 3."""
    histories: list[list[str]] = [[] for _ in range(32)]
    known = [0] * len(histories)
    secs = 0.0
    computed = new = 0
    for turn_number in range(4):
        if restart and turn_number == 2:
            server = await restart()
        slots = asyncio.Semaphore(4)

        async def one(
            i: int, number: int = turn_number, at: Server = server, free: asyncio.Semaphore = slots
        ) -> Answer:
            words = 880 if number == 0 else 20
            question = text_of(words, seed=seed * 1000 + i * 10 + number)
            async with free:
                answer = await at.ask(Turn(question, tuple(histories[i]), n_out=16, keep=True))
            histories[i] += [question, answer.text.strip()]
            return answer

        began = asyncio.get_running_loop().time()
        answers = await asyncio.gather(*(one(i) for i in range(len(histories))))
        secs += asyncio.get_running_loop().time() - began
        for i, answer in enumerate(answers):
            computed += answer.n_computed
            new += answer.n_prompt - known[i]
            known[i] = answer.n_prompt + 16
    return Conversations(secs, computed / new)


async def return_to_a_long_chat(server: Server, restart: Restart, *, seed: int) -> float:
    """First token (ms) of the next turn of an 8,000-token chat after the server was stopped and started."""
    opening = text_of(7900, seed=seed)
    first = await server.ask(Turn(opening, n_out=8, keep=True))
    server = await restart()
    follow_up = Turn(text_of(12, seed=seed + 1), (opening, first.text.strip()), n_out=4, keep=True)
    return (await server.ask(follow_up)).first_token_secs * 1000
