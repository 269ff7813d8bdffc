"""``python -m bench.memory``: the built-in store of memories. Speed of import and search, recall of joined search.

Goes through the real indexing and search, on a database of its own; in BENCH_MEMORY_DIR it is kept for another run.
"""

import argparse
import atexit
import json
import os
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from unittest import mock

KEPT = os.environ.get("BENCH_MEMORY_DIR")
FOLDER = Path(KEPT or tempfile.mkdtemp(prefix="gemma-bench-")).resolve()
if not KEPT:
    atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
os.environ.update(GEMMA_DATA_DIR=str(FOLDER), GEMMA_BACKEND="fake", DJANGO_SETTINGS_MODULE="gemma_project.settings")

import django  # noqa: E402  the settings read the environment made above

django.setup()

import numpy as np  # noqa: E402
import psutil  # noqa: E402
from django.core.management import call_command  # noqa: E402
from tqdm import tqdm  # noqa: E402

from bench import memory_data, memory_turns  # noqa: E402
from bench.memory_data import NOW, Data, Question  # noqa: E402
from chat.rag.indexing.indexer import index_transcripts  # noqa: E402
from chat.rag.models import Passage  # noqa: E402
from chat.rag.query import RetrievalQuery, SourceFilters  # noqa: E402
from chat.rag.retrieval import retriever  # noqa: E402
from chat.rag.search import fulltext, hybrid  # noqa: E402
from chat.rag.search.fulltext import Matches  # noqa: E402
from chat.rag.search.query_understanding import QueryHints  # noqa: E402
from chat.rag.vectors import embedding  # noqa: E402

RESULTS = Path(__file__).resolve().parent / "results"
TOP_K = 5
# The part that is switched off for each column of the table.
COLUMNS = {
    "joined": (),
    "vectors alone": ("words",),
    "words alone": ("vectors",),
    "vectors, nothing understood": ("words", "understanding"),
    "words, nothing understood": ("vectors", "understanding"),
}
SWITCHES = {
    "words": (
        fulltext,
        "matches",
        lambda text, snapshot, _: Matches(hybrid.NO_HITS, *np.zeros((2, len(snapshot)), bool)),
    ),
    "vectors": (embedding, "embed_question", lambda text, encoding: None),
    "understanding": (hybrid, "understand_query", lambda *args, **kwargs: QueryHints()),
}


@dataclass
class Report:
    n_segments: int = 0
    mean_tokens: float = 0.0
    import_per_sec: float = 0.0
    load_ms: float = 0.0
    index_ram_mb: float = 0.0
    database_mb: float = 0.0
    search_p50_ms: float = 0.0
    search_p95_ms: float = 0.0
    turn_p50_ms: float = 0.0
    turn_p95_ms: float = 0.0
    recall: dict[str, dict[str, float]] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)


def import_all(data: Data, report: Report) -> None:
    """Nothing is done when the folder holds them already; the figure of the import is then the kept one."""
    call_command("migrate", verbosity=0)
    kept = FOLDER / "import.json"
    if not kept.exists():
        embedding.embed_question("warm", embedding.target_encoding())
        started = time.monotonic()
        with tqdm(total=len(data.lines), unit="segment", desc="import", mininterval=2) as bar:
            for _ in index_transcripts(owner="", transcripts=memory_data.recordings(data)):
                bar.update(memory_data.LINES_PER_RECORDING)
        kept.write_text(json.dumps(len(data.lines) / (time.monotonic() - started)))
    report.n_segments = Passage.objects.count()
    report.import_per_sec = json.loads(kept.read_text())
    report.mean_tokens = embedding.mean_tokens([line.text for line in data.lines[:2000]])
    report.database_mb = sum(path.stat().st_size for path in FOLDER.glob("gemma.sqlite3*")) / 1e6


def load(report: Report) -> None:
    """Measure the time and memory of a process's first search."""
    process = psutil.Process()
    before, started = process.memory_info().rss, time.monotonic()
    hybrid.INDEX.fresh()
    report.load_ms = (time.monotonic() - started) * 1000
    report.index_ram_mb = (process.memory_info().rss - before) / 1e6


def query_of(question: Question, *, with_neighbours: bool) -> RetrievalQuery:
    return RetrievalQuery(
        text=question.text, top_k=TOP_K, filters=SourceFilters(), owner="", now=NOW, with_neighbours=with_neighbours
    )


def recall(data: Data, report: Report) -> None:
    """The share of questions whose one right line is among the first five, without the lines around hits."""
    for column, switched_off in COLUMNS.items():
        found: defaultdict[str, list[bool]] = defaultdict(list)
        with ExitStack() as stack:
            for name in switched_off:
                stack.enter_context(mock.patch.object(*SWITCHES[name]))
            for question in tqdm(data.questions, desc=column, leave=False, mininterval=2):
                sources = retriever.retrieve(query_of(question, with_neighbours=False)).sources
                found[question.kind].append(question.answer in [source.text for source in sources])
                if column == "joined" and not found[question.kind][-1]:
                    report.missed.append(f"{question.text} -> {question.answer}")
        report.recall[column] = {kind: sum(hits) / len(hits) for kind, hits in found.items()}


def speed(data: Data, report: Report) -> None:
    """Whole searches as a chat turn makes them: understanding, embedding the question, both searches, lines around."""
    took_ms = []
    for question in tqdm(data.questions * 2, desc="search", leave=False, mininterval=2):
        started = time.monotonic()
        retriever.retrieve(query_of(question, with_neighbours=True))
        took_ms.append((time.monotonic() - started) * 1000)
    warm = took_ms[len(data.questions) :]
    report.search_p50_ms, report.search_p95_ms = (float(np.percentile(warm, share)) for share in (50, 95))


def turns(data: Data, report: Report) -> None:
    added = memory_turns.added_ms(FOLDER, [question.text for question in data.questions])
    report.turn_p50_ms, report.turn_p95_ms = (float(np.percentile(added, share)) for share in (50, 95))


def lines(report: Report) -> Iterator[str]:
    yield "| measure | value | aim |\n|---|---|---|"
    yield f"| segments (tokens each, mean) | {report.n_segments:,} ({report.mean_tokens:.1f}) | |"
    yield f"| import, segments/s | {report.import_per_sec:.0f} | >= 300 |"
    yield f"| search, p50, ms | {report.search_p50_ms:.1f} | |"
    yield f"| search, p95, ms | {report.search_p95_ms:.1f} | <= 50 |"
    yield f"| first token of a turn with memories later by, p50, ms | {report.turn_p50_ms:.1f} | |"
    yield f"| first token of a turn with memories later by, p95, ms | {report.turn_p95_ms:.1f} | |"
    yield f"| index in RAM, MB (database, MB) | {report.index_ram_mb:.0f} ({report.database_mb:.0f}) | |"
    yield f"| first search of a process loads it in, ms | {report.load_ms:.0f} | |"
    yield "\n| recall@5 | " + " | ".join(COLUMNS) + " |\n|---" * 1 + "|---" * len(COLUMNS) + "|"
    for kind in memory_data.CLASSES:
        cells = [f"{report.recall[column][kind]:.3f}" for column in COLUMNS]
        yield f"| {kind} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__)
    parser.add_argument("--size", type=int, default=100_000, help="segments")
    parser.add_argument("--questions", type=int, default=40, help="of each class")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    data = memory_data.make(args.size, n_questions=args.questions)
    report = Report()
    import_all(data, report)
    load(report)
    recall(data, report)
    speed(data, report)
    turns(data, report)
    args.results.mkdir(parents=True, exist_ok=True)
    (args.results / "memory.json").write_text(json.dumps(asdict(report), indent=2) + "\n")
    print("\n".join(lines(report)))


if __name__ == "__main__":
    main()
