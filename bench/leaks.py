"""``python -m bench.leaks``: does the memory of runner and worker grow once the caches are full?

The whole service on the real model with small caches; a first part fills them to their caps, then 1,000 mixed requests.
"""

import argparse
import asyncio
import contextlib
import os
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
from tqdm import tqdm

from bench import servers
from bench.__main__ import default_model
from bench.prompts import text_of
from bench.servers import Running, Setup

AT_ONCE = 4
REACH = 0.02
SETTLE_SECS = 3.0
OWN = ", without files"
SMALL_CACHES = {"GEMMA_CACHE_RAM_MB": "8", "GEMMA_CACHE_DISK_MB": "16", "GEMMA_BATCH_SIZE": "128"}


def body_of(number: int) -> dict[str, Any]:
    """Return one request of a mix: short and long, with and without a shared prefix, stored or not, penalties."""
    draw = random.Random(number)
    n_words = draw.choice((3, 6, 12, 12, 24, 90))
    beginning = text_of(40, seed=draw.randrange(4)) if draw.random() < 0.4 else ""
    return {
        "messages": [{"role": "user", "content": f"{beginning} {text_of(n_words, seed=10_000 + number)}"}],
        "max_tokens": draw.choice((1, 2, 4, 8)),
        "temperature": draw.choice((0.0, 0.7, 1.2)),
        "repeat_penalty": draw.choice((1.0, 1.1)),
        "ignore_eos": True,
        "store": draw.random() < 0.5,
        "cache_prompt": draw.random() < 0.9,
    }


async def ask(client: httpx.AsyncClient, number: int) -> None:
    """Send a request; one in ten disconnects after its first line, which cancels it."""
    async with client.stream("POST", "/chat/stream", json=body_of(number)) as response:
        if response.status_code != httpx.codes.OK:
            raise RuntimeError(f"request {number}: {response.status_code} {(await response.aread()).decode()[:300]}")
        async for line in response.aiter_lines():
            if number % 10 == 0 and line.startswith("data:"):
                return


async def ask_many(url: str, numbers: range, title: str) -> None:
    waiting = iter(numbers)
    limits = httpx.Limits(max_connections=2 * AT_ONCE)
    with tqdm(total=len(numbers), unit="request", desc=title) as bar:
        async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as client:

            async def one_after_the_other() -> None:
                for number in waiting:
                    await ask(client, number)
                    bar.update()

            await asyncio.gather(*(one_after_the_other() for _ in range(AT_ONCE)))


def resident_mb(running: Running) -> dict[str, float]:
    """Return the resident memory of the idle runner and worker, the median of a few readings, and its private part.

    The rest are pages of files (weights, libraries), which the kernel reclaims when they are not used for a while.
    """
    assert running.process is not None
    time.sleep(SETTLE_SECS)
    found: dict[str, list[float]] = {}
    for _ in range(5):
        for process in psutil.Process(running.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                title = " ".join(process.cmdline())
                name = next((each for each in ("gemma-runner", "gemma-worker") if title.startswith(each)), None)
                if name:
                    memory = process.memory_info()
                    found.setdefault(name, []).append(memory.rss / 2**20)
                    found.setdefault(f"{name}{OWN}", []).append((memory.rss - memory.shared) / 2**20)
        time.sleep(0.2)
    return {name: statistics.median(values) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.leaks", description=__doc__)
    parser.add_argument("--model", type=Path, help="a GGUF file instead of the default model")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--fill", type=int, default=200, help="requests that fill the caches first")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    running = servers.ours(Setup((args.model or default_model()).resolve(), args.threads, 2048, AT_ONCE))
    running.environment |= SMALL_CACHES
    running.start()
    try:
        asyncio.run(ask_many(running.url, range(args.fill), "filling the caches"))
        before = resident_mb(running)
        asyncio.run(ask_many(running.url, range(args.fill, args.fill + args.requests), "mixed requests"))
        after = resident_mb(running)
    finally:
        running.forget()
    grown = {name: after[name] / before[name] - 1 for name in before}
    print(f"| process | full caches, MiB | {args.requests} requests later | growth |\n|---|---|---|---|")
    for name, growth in grown.items():
        print(f"| {name} | {before[name]:.1f} | {after[name]:.1f} | {growth:+.2%} |")
    sys.exit(max(growth for name, growth in grown.items() if not name.endswith(OWN)) > REACH)


if __name__ == "__main__":
    main()
