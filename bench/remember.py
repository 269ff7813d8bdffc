"""``python -m bench.remember``: does a long conversation still know what was said in it?

Both sides of a conversation are scripted. It is stored with one request, or with ``--pause`` played turn by turn: a
grammar makes the model answer with the words of the script, in the time that this takes. Then questions about the facts
are asked, each of the same stored conversation, and their answers are compared with the facts. Figures, not a test: a
small model misses facts that it has in plain view, which is the way ``plain``.
"""

import argparse
import asyncio
import atexit
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

FOLDER = tempfile.mkdtemp(prefix="gemma-bench-")
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
os.environ.update(GEMMA_DATA_DIR=FOLDER, DJANGO_SETTINGS_MODULE="gemma_project.settings")

import django  # noqa: E402  the settings read the environment made above

django.setup()

import httpx  # noqa: E402
from django.conf import settings as django_settings  # noqa: E402
from tqdm import tqdm  # noqa: E402

from bench import servers  # noqa: E402
from bench.__main__ import RESULTS, default_model  # noqa: E402
from bench.remember_data import LANGUAGES, Talk, only_facts, talk_of  # noqa: E402
from bench.remember_direct import measure, open_model  # noqa: E402
from bench.remember_play import (  # noqa: E402
    WAYS,
    ask_all,
    delete_summaries,
    forbid_summaries,
    play,
    read_summary,
    replace_by_extract,
    store,
    wait_until_idle,
)
from bench.remember_results import FACTS_ALONE, PLAIN, Outcome, Settings, append, load, table  # noqa: E402
from bench.servers import Running, Setup  # noqa: E402

IN_PLAIN_VIEW, PLAIN_CONTEXT = (PLAIN, FACTS_ALONE), 16_384
# One stored conversation is asked in these ways, in this order: its summary is replaced, then deleted.
EXTRACTS, WITHOUT_SUMMARY = ("extract", "extract and recall"), ("recall", "truncate")
PARALLEL = 8
DIRECT_TALKS = 6  # whose summaries are generated together
SUMMARY_SHARE = 1 / 8  # of the context, as TokenBudget has it


async def ask_stored(client: httpx.AsyncClient, talk: Talk, outcomes: Sequence[Outcome], run: "Run") -> None:
    conversation_id = await store(client, talk)
    await wait_until_idle(run.data)
    for outcome in outcomes:
        if outcome.way in EXTRACTS:
            replace_by_extract(run.data, talk, int(outcome.settings.context * SUMMARY_SHARE))
        elif outcome.way in WITHOUT_SUMMARY:
            delete_summaries(run.data)
        await read_summary(client, outcome, conversation_id)
        await ask_all(client, talk, outcome, conversation_id)
        append(run.results, outcome)


async def play_all(client: httpx.AsyncClient, talk: Talk, outcomes: Sequence[Outcome], run: "Run") -> None:
    for outcome in outcomes:
        conversation_id = await play(client, talk, outcome, run.data)
        await ask_all(client, talk, outcome, conversation_id)
        await wait_until_idle(run.data)
        await read_summary(client, outcome, conversation_id)
        append(run.results, outcome)


@dataclass(frozen=True, kw_only=True)
class Run:
    """Conversations to be held with one server, in several ways each."""

    settings: Settings
    missing: dict[tuple[str, int], list[Outcome]]  # by language and number
    results: Path
    deadline: float
    data: Path = Path()

    async def measure(self, running: Running) -> None:
        """Measure the conversations one after the other until the time is over."""
        run = replace(self, data=running.folder / "data")
        ways = {outcome.way for outcomes in self.missing.values() for outcome in outcomes}
        if ways.issubset(WITHOUT_SUMMARY):
            forbid_summaries(run.data)
        title = f"{'/'.join(sorted(ways))} {self.settings.context}"
        async with httpx.AsyncClient(base_url=running.url, timeout=900) as client:
            for (language, seed), outcomes in tqdm(self.missing.items(), desc=title, unit="talk", mininterval=5):
                if time.monotonic() > self.deadline:
                    break
                talk = talk_of(language, seed=seed)
                for small in [outcome for outcome in outcomes if outcome.way == FACTS_ALONE]:
                    await ask_stored(client, only_facts(talk), [small], run)
                whole = [outcome for outcome in outcomes if outcome.way != FACTS_ALONE]
                if whole:
                    await (ask_stored if self.settings.pause is None else play_all)(client, talk, whole, run)


def _missing(settings: Settings, ways: Sequence[str], args: argparse.Namespace) -> dict[tuple[str, int], list[Outcome]]:
    """Return an outcome to be measured for each that the results lack, by conversation."""
    complete = {outcome.key for outcome in load(args.results)}
    missing: dict[tuple[str, int], list[Outcome]] = {}
    for seed in range(args.first, args.first + args.conversations):
        for language in args.languages:
            talk = talk_of(language, seed=seed)
            for way in ways:
                key = settings.key(way, talk)
                if key not in complete:
                    outcome = Outcome(key=key, way=way, language=language, seed=seed, settings=settings)
                    missing.setdefault((language, seed), []).append(outcome)
    return missing


def _run_directly(missing: dict[tuple[str, int], list[Outcome]], args: argparse.Namespace, context: int) -> None:
    django_settings.GEMMA_MODEL_FILE = args.model.resolve()
    if args.summary_at:
        django_settings.HISTORY_SUMMARY_AT = float(args.summary_at)
    model = open_model(args.threads)
    numbers = list(missing)
    for start in tqdm(range(0, len(numbers), DIRECT_TALKS), desc=f"direct {context}", mininterval=5):
        group = numbers[start : start + DIRECT_TALKS]
        talks = [talk_of(language, seed=seed) for language, seed in group]
        for outcome in measure(model, talks, [missing[number] for number in group], context):
            append(args.results, outcome)


def _run(ways: Sequence[str], context: int, args: argparse.Namespace) -> None:
    is_plain = context == PLAIN_CONTEXT
    settings = Settings(
        model=args.model.stem,
        context=context,
        pause=None if is_plain else args.pause,
        summary_at="" if is_plain else args.summary_at,
        label=args.label,
        is_direct=args.direct,
    )
    missing = _missing(settings, ways, args)
    if not missing:
        return
    deadline = time.monotonic() + 60 * args.minutes
    if args.direct:
        _run_directly(missing, args, context)
        return
    run = Run(settings=settings, missing=missing, results=args.results, deadline=deadline)
    running = servers.ours(Setup(args.model.resolve(), args.threads, context, PARALLEL))
    if args.summary_at:
        running.environment["HISTORY_SUMMARY_AT"] = args.summary_at
    try:
        running.start()
        asyncio.run(run.measure(running))
    finally:
        running.forget()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.remember", description=__doc__)
    parser.add_argument("--model", type=Path, help="a GGUF file instead of the default model")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--languages", nargs="+", choices=LANGUAGES, default=list(LANGUAGES))
    parser.add_argument("--conversations", type=int, default=1, help="of each language (1)")
    parser.add_argument("--first", type=int, default=0, help="number of the first conversation (0)")
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--pause", type=float, help="play the turns, with so many seconds from answer to question")
    parser.add_argument("--direct", action="store_true", help="without the service: stored conversations, faster")
    parser.add_argument("--minutes", type=float, default=600.0, help="begin no conversation after so long, each server")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--summary-at", default="", help="HISTORY_SUMMARY_AT (its default)")
    parser.add_argument("--label", default="", help="name of a variant of the code, in the results")
    parser.add_argument(
        "--results", type=Path, default=RESULTS / "remember.jsonl", help="outcomes there are not measured again"
    )
    parser.add_argument("--table", action="store_true", help="print the table of the results, measure nothing")
    args = parser.parse_args()
    if not args.table:
        args.model = args.model or default_model()
        groups: dict[int, list[str]] = {}
        for way in WAYS:
            if way in args.ways:
                groups.setdefault(PLAIN_CONTEXT if way in IN_PLAIN_VIEW else args.context, []).append(way)
        for context, ways in groups.items():
            _run(ways, context, args)
    print(table(load(args.results)))


if __name__ == "__main__":
    main()
