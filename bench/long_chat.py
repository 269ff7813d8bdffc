"""``python -m bench.long_chat``: one conversation of many turns against the real stack, and one very long prompt.

Measures the cost of a conversation's length: time to first token and computed prompt tokens by turn, with a step only
where a summary was made; and that early facts remain in the prompt.
"""

import argparse
import asyncio
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import httpx
import psutil
from tqdm import tqdm

from bench import servers
from bench.__main__ import RESULTS, default_model
from bench.long_chat_plot import as_svg
from bench.prompts import text_of
from bench.servers import Running, Setup
from bench.streams import data_lines
from inference.engine.config import MEBIBYTE

FACTS = {
    2: "The spare key is under the marigold pot.",
    5: "My sister Ottilie arrives on 14 March.",
    9: "Call it Quillon.",
}
NEEDLES = ("marigold", "Ottilie", "Quillon")


@dataclass(frozen=True)
class Point:
    """Measures of a turn. ``n_new``: tokens of its prompt beyond the former prompt and answer, negative after a
    summary."""

    turn: int
    first_token_ms: float
    n_prompt: int
    n_computed: int
    n_new: int
    summary_version: int
    n_left_out: int


async def ask(
    client: httpx.AsyncClient,
    text: str,
    conversation_id: str | None,
    n_out: int,
    on_progress: Callable[[float], object] = lambda share: None,
) -> dict[str, Any]:
    """Return a turn's last line, with ``first_token_ms`` as its client saw it.

    ``on_progress`` gets the computed share of the prompt, from 0 to 1."""
    message = {"conversation_id": conversation_id, "message": text} if conversation_id else {"messages": [_user(text)]}
    body = {**message, "max_tokens": n_out, "temperature": 0, "ignore_eos": True, "seed": 1}
    began, first = time.monotonic(), 0.0
    async for line in data_lines(client, "/chat/stream", body):
        if line["token"] and not first:
            first = (time.monotonic() - began) * 1000
        if (progress := line.get("status", {}).get("progress")) is not None:
            on_progress(progress)
        if line.get("error"):
            raise RuntimeError(f"the stream failed: {line['error']}")
        if line["done"]:
            return line | {"first_token_ms": first}
    raise RuntimeError("the stream has no end")


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


async def talk(client: httpx.AsyncClient, args: argparse.Namespace) -> tuple[str, list[Point]]:
    """Run the whole conversation; its first turns contain the facts."""
    conversation_id: str | None = None
    points: list[Point] = []
    before = 0
    for number in tqdm(range(1, args.turns + 1), unit="turn"):
        text = FACTS.get(number) or text_of(args.words, seed=number)
        done = await ask(client, text, conversation_id, args.out)
        conversation_id = done["conversation_id"]
        usage = done["usage"]
        history = usage.get("history", {})
        points.append(
            Point(
                turn=number,
                first_token_ms=done["first_token_ms"],
                n_prompt=usage["prompt_tokens"],
                n_computed=usage["prompt_tokens"] - usage["cached_tokens"],
                n_new=usage["prompt_tokens"] - before,
                summary_version=history.get("summary_version", 0),
                n_left_out=history.get("messages_left_out", 0),
            )
        )
        before = usage["prompt_tokens"] + usage["completion_tokens"]
        await asyncio.sleep(args.pause)
    assert conversation_id is not None
    return conversation_id, points


async def remaining_facts(client: httpx.AsyncClient, conversation_id: str) -> dict[str, Any]:
    """Count the facts that remain: in the summary in use, and by a search over the messages."""
    path = f"/api/conversations/{conversation_id}"
    summary = (await client.get(f"{path}/")).json()["summary"]
    versions = (await client.get(f"{path}/summaries/")).json()["results"]
    hits = {
        needle: conversation_id
        in [row["id"] for row in (await client.get("/api/conversations/", params={"search": needle})).json()["results"]]
        for needle in NEEDLES
    }
    made = [version for version in versions if version["state"] == "made"]
    in_summary = {needle: needle in summary for needle in NEEDLES}
    return {
        "versions": len(versions),
        "made": len(made),
        "covers_until": made[0]["covers_until"] if made else None,
        "errors": sorted({version["error"] for version in versions if version["error"]}),
        "texts": [version["text"] for version in versions[:2]],
        "summary_tokens": made[0]["tokens"] if made else 0,
        "in_summary": in_summary,
        "found_by_search": hits,
        "lost": [needle for needle in NEEDLES if not (in_summary[needle] or hits[needle])],
    }


def runner_mb(running: Running) -> float:
    """Resident memory of the process that holds the model."""
    assert running.process is not None
    below = psutil.Process(running.process.pid).children(recursive=True)
    titled = [process for process in below if " ".join(process.cmdline()).startswith("gemma-runner")]
    return max(process.memory_info().rss for process in titled) / MEBIBYTE


async def long_prompt(client: httpx.AsyncClient, running: Running, n_tokens: int) -> dict[str, float | None]:
    """Measure a prompt of about ``n_tokens``, and the turn after it."""
    health = (await client.get("/health")).json()
    before_mb = runner_mb(running)
    with tqdm(total=n_tokens, unit="tok", desc="prompt") as bar:
        first = await ask(client, text_of(n_tokens, seed=7), None, 8, lambda share: _move(bar, share))
    read_mb = runner_mb(running)
    second = await ask(client, "And now?", first["conversation_id"], 8)
    secs = first["first_token_ms"] / 1000
    return {
        "context_size": health["context_size"],
        "kv_cache_mb": health["kv_cache_mb"],
        "prompt_tokens": first["usage"]["prompt_tokens"],
        "first_token_secs": secs,
        "prompt_tokens_per_second": first["usage"]["prompt_tokens"] / secs,
        "next_turn_ms": second["first_token_ms"],
        "next_turn_computed": second["usage"]["prompt_tokens"] - second["usage"]["cached_tokens"],
        "runner_mb_before": before_mb,
        "runner_mb_after_prompt": read_mb,
        "runner_mb_after": runner_mb(running),
    }


def _move(bar: "tqdm[NoReturn]", share: float) -> None:
    bar.update(int(share * (bar.total or 0)) - bar.n)


def summary_of(points: list[Point]) -> dict[str, Any]:
    """Turns between folds beside the turns in which a new summary came in."""
    is_step = [after.summary_version > before.summary_version for before, after in pairwise(points)]
    steps = [point for point, step in zip(points[1:], is_step, strict=True) if step]
    steady = [point for point, step in zip(points[1:], is_step, strict=True) if not step]
    return {
        "turns": len(points),
        "folds": len(steps),
        "steady_first_token_ms": statistics.median(point.first_token_ms for point in steady),
        "steady_first_token_ms_max": max(point.first_token_ms for point in steady),
        "steady_computed_beyond_new": max(point.n_computed - point.n_new for point in steady if point.n_new > 0),
        "fold_first_token_ms": statistics.median([point.first_token_ms for point in steps] or [0.0]),
        "fold_computed": statistics.median([point.n_computed for point in steps] or [0]),
        "left_out_in_turns": sum(point.n_left_out > 0 for point in points),
    }


async def play(args: argparse.Namespace) -> dict[str, Any]:
    setup = Setup((args.model or default_model()).resolve(), args.threads, args.context, args.parallel)
    running = servers.ours(setup)
    running.environment["HISTORY_SUMMARY_TOKENS"] = str(args.summary_tokens)
    running.start()
    try:
        async with httpx.AsyncClient(base_url=running.url, timeout=900) as client:
            if args.long:
                return {"long": await long_prompt(client, running, args.long)}
            conversation_id, points = await talk(client, args)
            facts = await remaining_facts(client, conversation_id)
        return {"chat": summary_of(points), "kept": facts, "points": [asdict(point) for point in points]}
    finally:
        running.forget()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.long_chat", description=__doc__)
    parser.add_argument("--model", type=Path, help="a GGUF file instead of the default model")
    parser.add_argument("--turns", type=int, default=400)
    parser.add_argument("--words", type=int, default=16, help="words of a question (16)")
    parser.add_argument("--out", type=int, default=16, help="tokens of an answer (16)")
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--summary-tokens", type=int, default=128)
    # Without a stop between its turns a conversation leaves its summaries no time, and its oldest turns are left out.
    parser.add_argument("--pause", type=float, default=0.4, help="seconds from an answer to the next question (0.4)")
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--long", type=int, default=0, help="one prompt of so many tokens instead of the conversation")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    args.results.mkdir(parents=True, exist_ok=True)
    measured = asyncio.run(play(args))
    points = measured.pop("points", [])
    if points:
        (args.results / "long_chat.json").write_text(json.dumps({**measured, "points": points}, indent=1) + "\n")
        (args.results / "long_chat.svg").write_text(as_svg(points))
    print(json.dumps(measured, indent=2))
    if lost := measured.get("kept", {}).get("lost"):
        raise SystemExit(f"told early and found no more, neither in the summary nor by search: {', '.join(lost)}")


if __name__ == "__main__":
    main()
