"""``python -m bench.remember``: does a long conversation still know what was said in it?

Both sides of a conversation are scripted. It is stored with one request, or with ``--pause`` played turn by turn: a
grammar makes the model answer with the words of the script, in the time that this takes. Then questions about the facts
are asked, each of the same stored conversation, and their answers are compared with the facts. Figures, not a test: a
small model misses facts that it has in plain view, which is the way ``plain``.
"""

import argparse
import asyncio
import atexit
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

FOLDER = tempfile.mkdtemp(prefix="gemma-bench-")
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
os.environ.update(GEMMA_DATA_DIR=FOLDER, DJANGO_SETTINGS_MODULE="gemma_project.settings")

import django  # noqa: E402  the settings read the environment made above

django.setup()

import httpx  # noqa: E402
from tqdm import tqdm  # noqa: E402

from bench import servers  # noqa: E402
from bench.__main__ import RESULTS, default_model  # noqa: E402
from bench.remember_data import LANGUAGES, Talk, talk_of  # noqa: E402
from bench.remember_play import (  # noqa: E402
    WAYS,
    Outcome,
    ask_all,
    delete_summaries,
    forbid_summaries,
    play,
    read_summary,
    replace_by_extract,
    store,
    wait_until_idle,
)
from bench.servers import Running, Setup  # noqa: E402

PLAIN, PLAIN_CONTEXT = "plain", 16_384
# One stored conversation is asked in these ways, in this order: its summary is replaced, then deleted.
EXTRACTS, WITHOUT_SUMMARY = ("extract", "extract and recall"), ("recall", "truncate")
PARALLEL = 8
SUMMARY_SHARE = 1 / 8  # of the context, as TokenBudget has it


async def ask_stored(client: httpx.AsyncClient, talk: Talk, outcomes: Sequence[Outcome], data: Path) -> None:
    conversation_id = await store(client, talk)
    await wait_until_idle(data)
    for outcome in outcomes:
        if outcome.way in EXTRACTS:
            replace_by_extract(data, talk, int(outcome.context * SUMMARY_SHARE))
        elif outcome.way in WITHOUT_SUMMARY:
            delete_summaries(data)
        await read_summary(client, outcome, conversation_id)
        await ask_all(client, talk, outcome, conversation_id)


async def measure(running: Running, ways: Sequence[str], context: int, args: argparse.Namespace) -> list[Outcome]:
    """Measure the conversations one after the other until the time is over."""
    outcomes: list[Outcome] = []
    data = running.folder / "data"
    numbers = range(args.first, args.first + args.conversations)
    if set(ways).issubset(WITHOUT_SUMMARY):
        forbid_summaries(data)
    talks = [(language, seed) for seed in numbers for language in args.languages]
    async with httpx.AsyncClient(base_url=running.url, timeout=900) as client:
        for language, seed in tqdm(talks, desc=f"{'/'.join(ways)} {context}", unit="talk", mininterval=5):
            if time.monotonic() > args.deadline:
                break
            talk = talk_of(language, seed=seed)
            batch = [Outcome(way, language, seed, context, args.pause) for way in ways]
            if args.pause is None:
                await ask_stored(client, talk, batch, data)
            else:
                for outcome in batch:
                    conversation_id = await play(client, talk, outcome, data)
                    await ask_all(client, talk, outcome, conversation_id)
                    await wait_until_idle(data)
                    await read_summary(client, outcome, conversation_id)
            outcomes += batch
            _save(args.results, args.former + outcomes)
    return outcomes


def _save(path: Path, outcomes: Sequence[Outcome]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1, ensure_ascii=False) + "\n")


def table(outcomes: Sequence[Outcome]) -> str:
    """Return a row for each way, context and pause; the ceiling is ``plain`` over the same conversations."""
    lines = [
        "| context | turns | way | conversations | right | of the ceiling | unanswerable refused | turns uncovered"
        " | first token p50 / p95 ms | computed per new p50 / p90 | time with summaries |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    ceiling = {(row.language, row.seed): row.right for row in outcomes if row.way == PLAIN}
    for context, pause, way in dict.fromkeys((row.context, row.pause, row.way) for row in outcomes):
        rows = [row for row in outcomes if (row.context, row.pause, row.way) == (context, pause, way)]
        right, n_facts = sum(row.right for row in rows), sum(row.n_facts for row in rows)
        compared = [row for row in rows if (row.language, row.seed) in ceiling]
        best = sum(ceiling[row.language, row.seed] for row in compared)
        share = f"{sum(row.right for row in compared) / best:.2f}" if best else "-"
        refused, unanswerable = sum(row.refused for row in rows), sum(row.n_unanswerable for row in rows)
        turns = "stored" if pause is None else f"{pause:g} s apart"
        cells = [context, turns, way, len(rows), f"{right}/{n_facts} ({right / max(1, n_facts):.0%})", share]
        cells += [f"{refused}/{unanswerable}", *_costs(rows)]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _costs(rows: Sequence[Outcome]) -> list[str]:
    times = sorted(ms for row in rows for ms in row.first_token_ms)
    if not times:
        return ["-"] * 4
    ratios = sorted(ratio for row in rows for ratio in row.computed_per_new)
    return [
        str(sum(row.uncovered_turns for row in rows)),
        f"{statistics.median(times):,.0f} / {times[int(len(times) * 0.95)]:,.0f}",
        f"{statistics.median(ratios):.2f} / {ratios[int(len(ratios) * 0.9)]:.2f}",
        f"{statistics.mean(row.summary_share for row in rows):.0%}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.remember", description=__doc__)
    parser.add_argument("--model", type=Path, help="a GGUF file instead of the default model")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--languages", nargs="+", choices=LANGUAGES, default=list(LANGUAGES))
    parser.add_argument("--conversations", type=int, default=1, help="of each language (1)")
    parser.add_argument("--first", type=int, default=0, help="number of the first conversation (0)")
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--pause", type=float, help="play the turns, with so many seconds from answer to question")
    parser.add_argument("--minutes", type=float, default=600.0, help="begin no conversation after so long, each server")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--summary-at", default="0.75", help="HISTORY_SUMMARY_AT (0.75)")
    parser.add_argument("--results", type=Path, default=RESULTS / "remember.json", help="outcomes there are kept")
    parser.add_argument("--table", action="store_true", help="print the table of the results, measure nothing")
    args = parser.parse_args()
    args.former = [Outcome(**row) for row in json.loads(args.results.read_text())] if args.results.exists() else []
    others = [way for way in WAYS if way in args.ways and way != PLAIN]
    runs = [([PLAIN], PLAIN_CONTEXT)] if PLAIN in args.ways else []
    runs += [(others, args.context)] if others else []
    for ways, context in [] if args.table else runs:
        running = servers.ours(Setup((args.model or default_model()).resolve(), args.threads, context, PARALLEL))
        running.environment["HISTORY_SUMMARY_AT"] = args.summary_at
        try:
            running.start()
            args.deadline = time.monotonic() + 60 * args.minutes
            args.former += asyncio.run(measure(running, ways, context, args))
        finally:
            running.forget()
    print(table(args.former))


if __name__ == "__main__":
    main()
