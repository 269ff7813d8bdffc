"""CPU time per request of web process and worker, by interface: ``/v1/...`` beside ``/chat/stream``, and the memory of
both and of the runner.

All answers stream 16 tokens, four at a time, and are stored. The interfaces take turns within a round.
"""

import asyncio
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import psutil
from tqdm import tqdm

from bench import servers
from bench.prompts import text_of
from bench.report import Row
from bench.servers import Setup

N_TOKENS, N_STREAMS, N_REQUESTS = 16, 4, 40
WARM_UP = 20
REST_SECS = 1.0  # the worker's last writes
AIM = 1.1
CHAT = "/chat/stream"
PROCESSES = {"web": "gemma-web", "worker": "gemma-worker", "runner": "gemma-runner"}
WITH_CPU = ("web", "worker")  # a runner has the same work for every interface
MEBIBYTE = 1024 * 1024
Body = dict[str, Any]


def _chat(question: str) -> Body:
    return {"messages": [{"role": "user", "content": question}], "max_tokens": N_TOKENS}


INTERFACES: dict[str, Callable[[str], Body]] = {
    CHAT: _chat,
    "/v1/chat/completions": lambda question: _chat(question) | {"stream": True},
    "/v1/responses": lambda question: {"input": question, "max_output_tokens": N_TOKENS, "stream": True},
    "/v1/messages": lambda question: _chat(question) | {"model": "default", "stream": True},
}


@dataclass(frozen=True)
class Processes:
    """The measured processes of a running service."""

    by_name: dict[str, psutil.Process]

    @classmethod
    def below(cls, pid: int) -> "Processes":
        titles = {process: " ".join(process.cmdline()) for process in psutil.Process(pid).children(recursive=True)}
        return cls(
            {
                name: next(process for process, words in titles.items() if words.startswith(title))
                for name, title in PROCESSES.items()
            }
        )

    def cpu_secs(self) -> dict[str, float]:
        times = {name: process.cpu_times() for name, process in self.by_name.items()}
        return {name: spent.user + spent.system for name, spent in times.items()}

    def private_mb(self) -> dict[str, float]:
        """Return the memory that each process shares with no other."""
        return {name: process.memory_full_info().uss / MEBIBYTE for name, process in self.by_name.items()}


async def ask(client: httpx.AsyncClient, path: str, question: str) -> None:
    """Read a whole stream."""
    body = INTERFACES[path](question) | {"temperature": 0, "ignore_eos": True}
    async with client.stream("POST", path, json=body) as response:
        if response.status_code != httpx.codes.OK:
            raise RuntimeError(f"{path} answered {response.status_code}: {(await response.aread()).decode()[:300]}")
        async for _ in response.aiter_bytes():
            pass


async def cpu_ms(client: httpx.AsyncClient, processes: Processes, path: str, seed: int) -> dict[str, float]:
    """Return the milliseconds per request of each process."""
    free = asyncio.Semaphore(N_STREAMS)

    async def one(number: int) -> None:
        async with free:
            await ask(client, path, text_of(40, seed=seed * 10_000 + number))

    before = processes.cpu_secs()
    await asyncio.gather(*(one(number) for number in range(N_REQUESTS)))
    await asyncio.sleep(REST_SECS)
    after = processes.cpu_secs()
    return {name: (after[name] - before[name]) / N_REQUESTS * 1000 for name in before}


def rows() -> dict[tuple[str, str], Row]:
    """Return a row for each interface and process; the other side is ``/chat/stream``."""
    pairs = ((path, name) for path in INTERFACES if path != CHAT for name in WITH_CPU)
    return {(path, name): Row(f"R8 CPU of {name}, {path} beside {CHAT}", "ms/request", AIM) for path, name in pairs}


def memory_rows(chat_alone: dict[str, float], everything: dict[str, float]) -> list[Row]:
    return [
        Row(f"R8 memory of {name}, all interfaces beside {CHAT} alone", "MB", AIM, ours=[mb], theirs=[chat_alone[name]])
        for name, mb in everything.items()
    ]


async def compare_interfaces(setup: Setup, rounds: int) -> list[Row]:
    """Measure all interfaces of one service, in another order each round."""
    table = rows()
    memory: list[dict[str, float]] = []
    running = servers.ours(replace(setup, parallel=N_STREAMS))
    running.environment["MODEL_ALIASES"] = "*"  # /v1/messages needs a name
    # Else the runner grows with the number of requests, whatever their interface, until this cache is full.
    running.environment["GEMMA_CACHE_RAM_MB"] = "0"
    running.start()
    try:
        assert running.process is not None
        processes = Processes.below(running.process.pid)
        async with httpx.AsyncClient(base_url=running.url, timeout=120) as client:
            for path in INTERFACES:  # modules that are imported late, and the runner's first batches
                await asyncio.gather(*(ask(client, path, f"{path} {number}") for number in range(WARM_UP)))
                memory.append(processes.private_mb())
            for number in tqdm(range(1, rounds + 1), unit="round", file=sys.stderr):
                spent = {path: await cpu_ms(client, processes, path, seed) for path, seed in _order(number)}
                for (path, name), row in table.items():
                    row.ours.append(spent[path][name])
                    row.theirs.append(spent[CHAT][name])
            memory.append(processes.private_mb())
    finally:
        running.forget()
    return [*table.values(), *memory_rows(memory[0], memory[-1])]


def _order(number: int) -> Iterator[tuple[str, int]]:
    """Yield the interfaces with seeds of their own; each round begins with another one."""
    paths = list(INTERFACES)
    start = number % len(paths)
    for place, path in enumerate((*paths[start:], *paths[:start])):
        yield path, number * len(paths) + place
