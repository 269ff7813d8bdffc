"""A scripted conversation in the running service, and the questions about it, for ``bench.remember``."""

import asyncio
import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from bench.remember_data import Talk
from bench.remember_results import FACTS_ALONE, PLAIN, Outcome
from bench.remember_scoring import is_refused, is_right
from bench.streams import data_lines
from chat.models import Role
from chat.prompting.history_notes import as_transcript
from chat.prompting.text_splitter import pieces
from chat.summarization.extract import extract

ANSWER_TOKENS, TURN_TOKENS = 32, 256
# Answers at a time: they share the conversation's prefix.
QUESTIONS_AT_ONCE = 4
CHARS_PER_TOKEN, PIECE_TOKENS = 3, 256
POLL_SECS, IDLE_SECS = 0.25, 600
SUMMARIZING = {"strategy": "summarize"}
# What a question about the stored conversation is sent with, whichever way it was held.
WAYS: dict[str, dict[str, Any]] = {
    PLAIN: SUMMARIZING,
    FACTS_ALONE: SUMMARIZING,
    "both": {**SUMMARIZING, "recall": True},
    "summary": {**SUMMARIZING, "recall": False},
    "extract": {**SUMMARIZING, "recall": False},
    "extract and recall": {**SUMMARIZING, "recall": True},
    "recall": {**SUMMARIZING, "recall": True},
    "truncate": {"strategy": "truncate"},
}
# Something of a turn is not complete yet: work after an answer, a summary, vectors.
IS_BUSY = (
    "SELECT EXISTS (SELECT 1 FROM inference_generation WHERE follow_up_task <> '' OR status IN ('queued', 'running'))"
    " OR EXISTS (SELECT 1 FROM chat_summary WHERE state = 'making' AND generation_id IS NOT NULL)"
    " OR EXISTS (SELECT 1 FROM chat_messagepassage WHERE encoding = '')"
)
# With a summary that is never made, no other one is started.
NO_SUMMARIES = (
    "CREATE TRIGGER no_summaries AFTER INSERT ON chat_conversation BEGIN"
    " INSERT INTO chat_summary (conversation_id, version, state, covers_until, text, n_tokens, error, note, created_at)"
    " VALUES (NEW.id, 1, 'making', 0, '', 0, '', '', CURRENT_TIMESTAMP); END"
)
IS_SUMMARIZING = (
    "SELECT EXISTS (SELECT 1 FROM inference_generation WHERE status = 'running' AND annex LIKE '%\"summary\"%')"
)


@contextmanager
def database_of(folder: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(next(folder.glob("*.sqlite3")), timeout=30, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


async def send(client: httpx.AsyncClient, body: dict[str, Any]) -> dict[str, Any]:
    """Return the last line of a turn with its ``text`` and ``first_token_ms``."""
    started, first, text = time.monotonic(), 0.0, ""
    async for line in data_lines(client, "/chat/stream", body):
        text += line["token"]
        if line["token"] and not first:
            first = (time.monotonic() - started) * 1000
        if line.get("error"):
            raise RuntimeError(f"the stream failed: {line['error']}")
        if line["done"]:
            return line | {"first_token_ms": first, "text": text}
    raise RuntimeError("the stream has no end")


async def wait_until_idle(data: Path) -> None:
    deadline = time.monotonic() + IDLE_SECS
    with database_of(data) as database:
        while database.execute(IS_BUSY).fetchone()[0]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"summaries or vectors were not complete after {IDLE_SECS} s")
            await asyncio.sleep(POLL_SECS)


async def store(client: httpx.AsyncClient, talk: Talk) -> str:
    """Store the conversation with one request, whose last answer is the script's; return its id."""
    *turns, (question, answer) = talk.turns
    messages = [_message(role, text) for turn in turns for role, text in zip(("user", "assistant"), turn, strict=True)]
    body = {"messages": [*messages, _message("user", question)], **_scripted(answer)}
    conversation_id: str = (await send(client, body))["conversation_id"]
    return conversation_id


async def play(client: httpx.AsyncClient, talk: Talk, outcome: Outcome, data: Path) -> str:
    """Hold the conversation turn by turn, each answer generated as the script has it; return its id."""
    conversation_id, before, options = "", 0, WAYS[outcome.way]
    watch = asyncio.create_task(_summarizing_share(data))
    for question, answer in talk.turns:
        body = {"message": question, "conversation_id": conversation_id} if conversation_id else {"message": question}
        done = await send(client, body | _scripted(answer) | options)
        conversation_id = done["conversation_id"]
        usage = done["usage"]
        history = usage.get("history", {})
        is_left_out = bool(history.get("messages_left_out"))
        outcome.left_out_turns += is_left_out
        outcome.uncovered_turns += is_left_out and not options.get("recall")
        outcome.first_token_ms.append(done["first_token_ms"])
        outcome.n_computed.append(usage["prompt_tokens"] - usage["cached_tokens"])
        n_new = usage["prompt_tokens"] - before
        if n_new > 0:
            outcome.computed_per_new.append(outcome.n_computed[-1] / n_new)
        before = usage["prompt_tokens"] + usage["completion_tokens"]
        await asyncio.sleep(outcome.settings.pause or 0)
    watch.cancel()
    outcome.summary_share = (await asyncio.gather(watch))[0]
    return conversation_id


async def _summarizing_share(data: Path) -> float:
    n_polls = n_summarizing = 0
    try:
        with database_of(data) as database:
            while True:
                n_summarizing += database.execute(IS_SUMMARIZING).fetchone()[0]
                n_polls += 1
                await asyncio.sleep(POLL_SECS)
    except asyncio.CancelledError:
        return n_summarizing / max(1, n_polls)


async def ask_all(client: httpx.AsyncClient, talk: Talk, outcome: Outcome, conversation_id: str) -> None:
    """Ask each question of the conversation as it is, and store nothing."""
    limit = asyncio.Semaphore(QUESTIONS_AT_ONCE)

    async def ask(question: str) -> dict[str, Any]:
        options = {"max_tokens": ANSWER_TOKENS, "temperature": 0, "stop": ["\n"], "store": False}
        options |= WAYS[outcome.way]
        async with limit:
            done = await send(client, {"message": question, "conversation_id": conversation_id} | options)
        history = done["usage"].get("history", {})
        recalled = [passage["position"] for passage in history.pop("recalled", [])]
        row = {"question": question, "answer": done["text"], "recalled": recalled, "history": history}
        return row | {"n_prompt": done["usage"]["prompt_tokens"], "finish_reason": done["finish_reason"]}

    questions = [fact.question for fact in talk.facts] + talk.unanswerable
    judge(talk, outcome, await asyncio.gather(*map(ask, questions)))


def judge(talk: Talk, outcome: Outcome, rows: Sequence[dict[str, Any]]) -> None:
    """Score the answers: those to the questions about the facts, then those to the unanswerable ones."""
    facts, refusals = rows[: len(talk.facts)], rows[len(talk.facts) :]
    for fact, row in zip(talk.facts, facts, strict=True):
        stated = fact.correction or fact.statement
        said_at = next(position for position, (text, _) in enumerate(talk.turns) if text.endswith(stated))
        row |= {"value": fact.value, "old": fact.old, "said_at": 2 * said_at}
        row["right"] = is_right(row["answer"], fact, talk.language)
    for row in refusals:
        row["refused"] = is_refused(row["answer"], talk.language)
    outcome.answers = [*facts, *refusals]
    outcome.right, outcome.n_facts = sum(row["right"] for row in facts), len(facts)
    outcome.refused, outcome.n_unanswerable = sum(row["refused"] for row in refusals), len(refusals)


async def read_summary(client: httpx.AsyncClient, outcome: Outcome, conversation_id: str) -> None:
    rows = (await client.get(f"/api/conversations/{conversation_id}/summaries/")).json()["results"]
    complete = [row for row in rows if row["state"] == "made"]
    if complete:
        outcome.summary, outcome.summary_note = complete[0]["text"], complete[0].get("note") or ""


def replace_by_extract(data: Path, talk: Talk, limit: int) -> None:
    """Put an extract of the same messages in the place of the latest summary."""
    with database_of(data) as database:
        row = database.execute("SELECT id, covers_until FROM chat_summary WHERE state = 'made' ORDER BY id").fetchall()
        if not row:
            return
        summary_id, covers_until = row[-1]
        messages = [message for user, answer in talk.turns for message in ((Role.USER, user), (Role.ASSISTANT, answer))]
        parts, text = pieces(as_transcript(messages[: covers_until + 1]), PIECE_TOKENS, _count), ""
        for number in range(len(parts)):
            text = extract(parts, number, text, limit=limit, count=_count) or text
        database.execute("UPDATE chat_summary SET text = ? WHERE id = ?", [text, summary_id])


def forbid_summaries(data: Path) -> None:
    with database_of(data) as database:
        database.execute(NO_SUMMARIES)


def delete_summaries(data: Path) -> None:
    with database_of(data) as database:
        database.execute("DELETE FROM chat_summary")


def _count(text: str) -> int:
    return len(text) // CHARS_PER_TOKEN + 1


def _message(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def _scripted(answer: str) -> dict[str, Any]:
    """Options under which the model writes ``answer``."""
    grammar = "root ::= " + json.dumps(answer, ensure_ascii=False)
    return {"max_tokens": TURN_TOKENS, "temperature": 0, "grammar": grammar}
