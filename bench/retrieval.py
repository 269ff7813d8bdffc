"""``python -m bench.retrieval``: does a search find the lines that answer a question? On real meetings and own ones.

Goes through the real indexing and search, on a database of its own. Beside it, on the same lines: BM25 over each line
with the one before it, cosine with the same encoder, and the join of both by reciprocal ranks. Conversations with odd
numbers are for tuning, those with even ones are reported; of the own ones those that are held back.
"""

import argparse
import atexit
import json
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

FOLDER = Path(tempfile.mkdtemp(prefix="gemma-bench-")).resolve()
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
os.environ.update(GEMMA_DATA_DIR=str(FOLDER), GEMMA_BACKEND="fake", DJANGO_SETTINGS_MODULE="gemma_project.settings")

import django  # noqa: E402  the settings read the environment made above

django.setup()

import numpy as np  # noqa: E402
from django.core.management import call_command  # noqa: E402
from tqdm import tqdm  # noqa: E402

from bench import retrieval_data  # noqa: E402
from bench.retrieval_data import NOW, Conversation  # noqa: E402
from bench.retrieval_measures import (  # noqa: E402
    DEPTHS,
    NAMES,
    Bm25,
    Numbers,
    chance_of_a_tie_or_better,
    joined,
    measures,
    ranking,
)
from bench.vector_cache import VectorCache  # noqa: E402
from chat.rag.indexing.indexer import index_transcripts  # noqa: E402
from chat.rag.models import Passage, Segment  # noqa: E402
from chat.rag.passage_context import spoken  # noqa: E402
from chat.rag.query import RetrievalQuery, SourceFilters  # noqa: E402
from chat.rag.search import hybrid  # noqa: E402
from chat.rag.sources import Source  # noqa: E402
from chat.rag.vectors import embedding  # noqa: E402
from chat.rag.vectors.encodings import active_encoding  # noqa: E402

RESULTS = Path(__file__).resolve().parent / "results"
OURS = "search"
METHODS = (OURS, "BM25", "cosine", "their join")
OFF_TOPIC = "off-topic without sources"
SAME_LANGUAGE = "off-topic in the same language without sources"
ON_TOPIC = "on-topic with sources"


@dataclass
class Results:
    """Values of a set of questions: by method a row of measures per question, and who got any source."""

    rows: dict[str, list[list[float]]] = field(default_factory=lambda: defaultdict(list))
    has_sources: list[bool] = field(default_factory=list)
    is_silent: list[bool] = field(default_factory=list)
    is_silent_in_own_language: list[bool] = field(default_factory=list)

    def add(self, other: "Results") -> None:
        for method, rows in other.rows.items():
            self.rows[method] += rows
        self.has_sources += other.has_sources
        self.is_silent += other.is_silent
        self.is_silent_in_own_language += other.is_silent_in_own_language


def retrieved(text: str, owner: str, *, only_related: bool) -> Sequence[Source]:
    result = hybrid.search(
        RetrievalQuery(
            text=text,
            top_k=max(DEPTHS),
            filters=SourceFilters(),
            owner=owner,
            now=NOW,
            with_neighbours=False,
            only_related=only_related,
        )
    )
    if result.error:
        raise RuntimeError(result.error)
    return result.sources


def measured(conversation: Conversation, off_topic: Sequence[str]) -> Results:
    """Index a conversation as the memories of an owner of its own, and ask its questions."""
    owner = f"bench:{uuid4()}"
    list(index_transcripts(owner=owner, transcripts=conversation.recordings))
    lines = Segment.objects.filter(transcript__owner=owner).order_by("transcript__created_at", "position")
    numbers = {str(pk): number for number, pk in enumerate(lines.values_list("pk", flat=True))}
    bm25 = Bm25(_with_the_line_before(conversation))
    vectors, line_of_row = _vectors(owner, numbers)
    results = Results()
    for question in tqdm(conversation.questions, desc=conversation.name, leave=False, mininterval=2):
        ours = [numbers[source.doc_id] for source in retrieved(question.text, owner, only_related=False)]
        by_words = ranking(bm25.scores(question.text))
        vector = embedding.embed_question(question.text, active_encoding())
        if vector is None:
            raise RuntimeError(embedding.unavailable_reason())
        by_meaning = list(dict.fromkeys(line_of_row[row] for row in ranking(vectors @ vector)))
        for method, lines_found in zip(
            METHODS, (ours, by_words, by_meaning, joined(by_words, by_meaning)), strict=True
        ):
            results.rows[method].append(measures(lines_found, set(question.answers)))
        results.has_sources.append(bool(retrieved(question.text, owner, only_related=True)))
    silent = {text: not retrieved(text, owner, only_related=True) for text in off_topic}
    results.is_silent = list(silent.values())
    results.is_silent_in_own_language = [silent[text] for text in conversation.off_topic]
    return results


def _with_the_line_before(conversation: Conversation) -> list[str]:
    texts = []
    for recording in conversation.recordings:
        before = ""
        for line in recording.segments:
            text = spoken(line.speaker, line.text)
            texts.append(f"{before}\n{text}")
            before = text
    return texts


def _vectors(owner: str, numbers: dict[str, int]) -> tuple[Numbers, list[int]]:
    rows = Passage.objects.filter(owner=owner).order_by("pk").values_list("segment_id", "embedding")
    vectors = np.array([np.frombuffer(vector or b"", np.float16) for _, vector in rows], np.float64)
    return vectors, [numbers[str(segment)] for segment, _ in rows]


def table(title: str, results: Results) -> Iterator[str]:
    yield (
        f"\n| {title}, {len(results.rows[OURS])} questions | "
        + " | ".join(NAMES)
        + " |\n|---"
        + "|---" * len(NAMES)
        + "|"
    )
    ours = np.array(results.rows[OURS])
    for method in METHODS:
        values = np.array(results.rows[method])
        cells = [f"{value:.3f}" for value in values.mean(axis=0)]
        if method != OURS:
            chances = chance_of_a_tie_or_better(ours, values)
            cells = [f"{cell} ({chance:.2f})" for cell, chance in zip(cells, chances, strict=True)]
        yield f"| {method} | " + " | ".join(cells) + " |"
    yield f"\n{ON_TOPIC}: {np.mean(results.has_sources):.3f}"
    if results.is_silent:
        yield f"{OFF_TOPIC}: {np.mean(results.is_silent):.3f} of {len(results.is_silent)}"
    if results.is_silent_in_own_language:
        share, n_questions = np.mean(results.is_silent_in_own_language), len(results.is_silent_in_own_language)
        yield f"{SAME_LANGUAGE}: {share:.3f} of {n_questions}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.retrieval", description=__doc__)
    parser.add_argument("--qmsum", type=Path, help="QMSum's validation set (qmsum_val.jsonl)")
    parser.add_argument("--at-most", type=int, default=10_000, metavar="LINES", help="skip longer meetings")
    parser.add_argument("--only", choices=["tuning", "reported"], help="one half of the meetings")
    parser.add_argument("--vectors", type=Path, default=RESULTS / "vectors.sqlite3", help="kept between runs")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    args.results.mkdir(parents=True, exist_ok=True)
    args.vectors.parent.mkdir(parents=True, exist_ok=True)
    call_command("migrate", verbosity=0)
    cache = VectorCache(args.vectors)
    embedding.embed_passages_in_background = cache.embed_in_background
    summary: dict[str, Results] = {}
    off_topic: list[str] = []
    for title, folder in (("own", retrieval_data.FOLDER), ("own held back", retrieval_data.HELD_BACK)):
        own = retrieval_data.own(folder)
        off_topic = [text for conversation in own for text in conversation.off_topic]
        summary[f"{title}, all languages"] = Results()
        for conversation in own:
            summary[f"{title}, {conversation.name}"] = results = measured(conversation, off_topic)
            summary[f"{title}, all languages"].add(results)
    meetings = retrieval_data.meetings(args.qmsum) if args.qmsum else []
    halves = {"reported": meetings[1::2], "tuning": meetings[0::2]}
    for half, conversations in halves.items():
        if conversations and args.only in (None, half):
            summary[f"meetings, {half}"] = Results()
            chosen = [conversation for conversation in conversations if len(conversation.lines) <= args.at_most]
            for conversation in tqdm(chosen, desc=half, mininterval=2):
                summary[f"meetings, {half}"].add(measured(conversation, off_topic))
    for title, results in summary.items():
        print("\n".join(table(title, results)))
    values = {
        title: {method: dict(zip(NAMES, np.mean(rows, axis=0), strict=True)) for method, rows in results.rows.items()}
        for title, results in summary.items()
    }
    (args.results / "retrieval.json").write_text(json.dumps(values, indent=2) + "\n")


if __name__ == "__main__":
    main()
