"""``python -m bench.remember``: does a long conversation still know what was said in it?

Both sides of a conversation are scripted: a grammar makes the model answer with the words of the script, through the
real stack and in the time that this takes. Then questions about the facts are asked, each of the same stored
conversation, and their answers are compared with the facts. Figures, not a test: a small model misses facts that it has
in plain view.
"""

import argparse
import asyncio
import json
import re
import sqlite3
import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

from bench import servers
from bench.__main__ import RESULTS, default_model
from bench.remember_data import REFUSALS, Talk, talk_of
from bench.servers import Running, Setup
from bench.streams import data_lines

PLAIN_CONTEXT = 16_384
ANSWER_TOKENS = 48
# What each way sends with its requests.
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "truncate": {"strategy": "truncate"},
    "summary": {"strategy": "summarize", "recall": False},
    "recall": {"strategy": "summarize", "recall": True},
    "both": {"strategy": "summarize", "recall": True},
}
NO_SUMMARY = (
    "INSERT INTO chat_summary (conversation_id, version, state, covers_until, text, n_tokens, error, note, created_at)"
    " VALUES (?, 1, 'making', 0, '', 0, '', '', CURRENT_TIMESTAMP)"
)


@dataclass
class Outcome:
    """Answers to the questions of one conversation, and the cost of its turns."""

    way: str
    language: str
    right: int = 0
    asked: int = 0
    refused: int = 0
    unanswerable: int = 0
    uncovered_turns: int = 0  # with messages left out that no summary covers
    first_token_ms: list[float] = field(default_factory=list)
    computed_per_new: list[float] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    summary: str = ""
    summary_note: str | None = None


def literal(text: str) -> str:
    return "root ::= " + json.dumps(text, ensure_ascii=False)


async def send(client: httpx.AsyncClient, body: dict[str, Any]) -> dict[str, Any]:
    """Return the last line of a turn with its ``text`` and ``first_token_ms``."""
    began, first, text = time.monotonic(), 0.0, ""
    async for line in data_lines(client, "/chat/stream", body):
        text += line["token"]
        if line["token"] and not first:
            first = (time.monotonic() - began) * 1000
        if line.get("error"):
            raise RuntimeError(f"the stream failed: {line['error']}")
        if line["done"]:
            return line | {"first_token_ms": first, "text": text}
    raise RuntimeError("the stream has no end")


async def play(client: httpx.AsyncClient, talk: Talk, outcome: Outcome, args: argparse.Namespace, data: Path) -> str:
    """Hold the scripted conversation; return its id."""
    conversation_id, before = "", 0
    for question, answer in tqdm(talk.turns, desc=f"{outcome.way} {talk.language}", unit="turn"):
        body = (
            {"message": question, "conversation_id": conversation_id}
            if conversation_id
            else {"messages": [_user(question)]}
        )
        options = {"max_tokens": 256, "temperature": 0, "grammar": literal(answer), **WAYS[outcome.way]}
        done = await send(client, body | options)
        if not conversation_id:
            conversation_id = done["conversation_id"]
            if outcome.way == "recall":
                _forbid_summaries(data, conversation_id)
        usage = done["usage"]
        history = usage.get("history", {})
        outcome.uncovered_turns += bool(history.get("messages_left_out"))
        outcome.first_token_ms.append(done["first_token_ms"])
        n_new = usage["prompt_tokens"] - before
        if n_new > 0:
            outcome.computed_per_new.append((usage["prompt_tokens"] - usage["cached_tokens"]) / n_new)
        before = usage["prompt_tokens"] + usage["completion_tokens"]
        await asyncio.sleep(args.pause)
    return conversation_id


def _forbid_summaries(data: Path, conversation_id: str) -> None:
    """Store a summary that is never made: as long as one is being made, none is started."""
    with sqlite3.connect(next(data.glob("*.sqlite3")), timeout=20) as database:
        database.execute(NO_SUMMARY, [conversation_id.replace("-", "")])


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


async def ask_all(client: httpx.AsyncClient, talk: Talk, outcome: Outcome, conversation_id: str) -> None:
    """Ask each question of the conversation as it is, and store nothing."""
    options = {"max_tokens": ANSWER_TOKENS, "temperature": 0, "store": False, **WAYS[outcome.way]}
    for fact in talk.facts:
        done = await send(client, {"message": fact.question, "conversation_id": conversation_id} | options)
        text = done["text"].casefold()
        is_right = re.search(fact.key, text) is not None and not (fact.wrong and fact.wrong in text)
        outcome.right, outcome.asked = outcome.right + is_right, outcome.asked + 1
        recalled = done["usage"].get("history", {}).get("recalled", [])
        outcome.answers.append(
            {"question": fact.question, "answer": done["text"], "right": is_right, "recalled": len(recalled)}
            | {"positions": [row["position"] for row in recalled]}
        )
    for question in talk.unanswerable:
        done = await send(client, {"message": question, "conversation_id": conversation_id} | options)
        is_refused = re.search(REFUSALS[talk.language], done["text"], re.IGNORECASE) is not None
        outcome.refused, outcome.unanswerable = outcome.refused + is_refused, outcome.unanswerable + 1
        outcome.answers.append({"question": question, "answer": done["text"], "refused": is_refused})


async def measure(running: Running, way: str, args: argparse.Namespace) -> list[Outcome]:
    outcomes = []
    async with httpx.AsyncClient(base_url=running.url, timeout=900) as client:
        for language in args.languages:
            for seed in range(args.conversations):
                talk = talk_of(language, n_turns=args.turns, seed=seed)
                outcome = Outcome(way, language)
                conversation_id = await play(client, talk, outcome, args, running.folder / "data")
                await asyncio.sleep(args.settle)
                await ask_all(client, talk, outcome, conversation_id)
                path = f"/api/conversations/{conversation_id}/summaries/"
                made = [row for row in (await client.get(path)).json()["results"] if row["state"] == "made"]
                if made:
                    outcome.summary, outcome.summary_note = made[0]["text"], made[0].get("note")
                outcomes.append(outcome)
    return outcomes


def table(outcomes: list[Outcome]) -> str:
    lines = ["| way | right | unanswerable refused | turns uncovered | first token p50 / p95 ms | computed per new |"]
    lines.append("|---|---|---|---|---|---|")
    for way in dict.fromkeys(outcome.way for outcome in outcomes):
        rows = [outcome for outcome in outcomes if outcome.way == way]
        times = sorted(ms for row in rows for ms in row.first_token_ms)
        costs = [cost for row in rows for cost in row.computed_per_new]
        right, asked = sum(row.right for row in rows), sum(row.asked for row in rows)
        refused, unanswerable = sum(row.refused for row in rows), sum(row.unanswerable for row in rows)
        p95 = times[int(len(times) * 0.95)]
        lines.append(
            f"| {way} | {right}/{asked} | {refused}/{unanswerable} | {sum(row.uncovered_turns for row in rows)}"
            f" | {statistics.median(times):.0f} / {p95:.0f} | {statistics.median(costs or [0]):.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.remember", description=__doc__)
    parser.add_argument("--model", type=Path, help="a GGUF file instead of the default model")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--languages", nargs="+", choices=sorted(REFUSALS), default=["en", "de", "es"])
    parser.add_argument("--conversations", type=int, default=1, help="of each language (1)")
    parser.add_argument("--turns", type=int, default=32)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds from an answer to the next question (0)")
    parser.add_argument("--settle", type=float, default=0.0, help="seconds before the questions (0)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--summary-at", default="0.75", help="HISTORY_SUMMARY_AT (0.75)")
    parser.add_argument("--results", type=Path, default=RESULTS / "remember.json")
    args = parser.parse_args()
    outcomes: list[Outcome] = []
    for way in args.ways:
        context = PLAIN_CONTEXT if way == "plain" else args.context
        running = servers.ours(Setup((args.model or default_model()).resolve(), args.threads, context, 4))
        running.environment["HISTORY_SUMMARY_AT"] = args.summary_at
        running.start()
        try:
            outcomes += asyncio.run(measure(running, way, args))
        finally:
            running.forget()
        args.results.parent.mkdir(parents=True, exist_ok=True)
        args.results.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1, ensure_ascii=False))
    print(table(outcomes))


if __name__ == "__main__":
    main()
