"""``python -m bench.citations MODEL``: do answers of a model say on which memories they rest, and on the right ones?

Asks the questions of the project's own conversations, and some of QMSum, with a GGUF model in this process, of the
sources that the search finds. Reports the answers with labels of the model, those with attributions of the service, and
whether a cited source holds one of the lines that answer the question. ``answers.jsonl`` has everything, to be judged
by the rubric in docs/citations.md.
"""

import argparse
import atexit
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

FOLDER = Path(tempfile.mkdtemp(prefix="gemma-bench-")).resolve()
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
os.environ.update(GEMMA_DATA_DIR=str(FOLDER), GEMMA_BACKEND="fake", DJANGO_SETTINGS_MODULE="gemma_project.settings")

import django  # noqa: E402  the settings read the environment made above

django.setup()

from django.core.management import call_command  # noqa: E402
from llama_cpp import Llama  # noqa: E402
from tqdm import tqdm  # noqa: E402

from bench import retrieval_data  # noqa: E402
from bench.retrieval_data import NOW, Conversation  # noqa: E402
from bench.vector_cache import VectorCache  # noqa: E402
from chat.prompting.system_prompt import SYSTEM_PROMPT, user_turn  # noqa: E402
from chat.rag.indexing.indexer import index_transcripts  # noqa: E402
from chat.rag.query import RetrievalQuery, SourceFilters  # noqa: E402
from chat.rag.retrieval.citations import cited_labels  # noqa: E402
from chat.rag.search import hybrid  # noqa: E402
from chat.rag.search.attribution import attributions  # noqa: E402
from chat.rag.sources import Source  # noqa: E402
from chat.rag.vectors import embedding  # noqa: E402

MAX_TOKENS = 96
CONTEXT = 4096


def shown(text: str, owner: str, top_k: int) -> list[Source]:
    """Return the sources of a question, labelled as in a prompt: from the oldest to the newest."""
    query = RetrievalQuery(text=text, top_k=top_k, filters=SourceFilters(), owner=owner, now=NOW)
    found = sorted(hybrid.search(query).sources, key=lambda source: source.age_key)
    return [replace(source, label=str(number)) for number, source in enumerate(found, 1)]


def judged(model: Llama, conversation: Conversation, text: str, answers: list[int], top_k: int) -> dict[str, Any]:
    """Ask one question, and compare the cited sources with the lines that answer it."""
    sources = shown(text, f"bench:{conversation.name}", top_k)
    messages: list[Any] = [
        {"role": "system", "content": SYSTEM_PROMPT},
        {"role": "user", "content": user_turn(text, sources)},
    ]
    reply: Any = model.create_chat_completion(messages, temperature=0.0, max_tokens=MAX_TOKENS)
    answer = str(reply["choices"][0]["message"]["content"])
    attributed = attributions(answer, [source.as_wire() for source in sources], text)
    labels = cited_labels(answer).intersection(source.label for source in sources)
    right = {
        source.label
        for source in sources
        if any(" ".join(conversation.lines[number].text.split()) in source.text for number in answers)
    }
    return {
        "conversation": conversation.name,
        "question": text,
        "answer": answer,
        "labels": sorted(labels),
        "attributions": [asdict(part) for part in attributed],
        "right": sorted(right),
        "sources": [source.as_wire() for source in sources],
    }


def rows(model: Llama, conversations: list[Conversation], *, each: int, top_k: int) -> Iterator[dict[str, Any]]:
    for conversation in conversations:
        owner = f"bench:{conversation.name}"
        list(index_transcripts(owner=owner, transcripts=conversation.recordings))
        for question in tqdm(conversation.questions[:each], desc=conversation.name, mininterval=10):
            yield judged(model, conversation, question.text, question.answers, top_k)
        for text in conversation.off_topic[: each // 3]:
            yield judged(model, conversation, text, [], top_k)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.citations", description=__doc__)
    parser.add_argument("model", type=Path, help="a GGUF file of a model that follows instructions")
    parser.add_argument("--qmsum", type=Path, help="QMSum's validation set (qmsum_val.jsonl)")
    parser.add_argument("--meetings", type=int, default=4)
    parser.add_argument("--each", type=int, default=15, metavar="N", help="questions of each conversation")
    parser.add_argument("--only", nargs="*", metavar="LANGUAGE", help="some of the own conversations")
    parser.add_argument("--top-k", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--vectors", type=Path, default=FOLDER / "vectors.sqlite3", help="kept between runs")
    parser.add_argument("--results", type=Path, default=Path(__file__).resolve().parent / "results")
    args = parser.parse_args()
    args.results.mkdir(parents=True, exist_ok=True)
    call_command("migrate", verbosity=0)
    embedding.embed_passages_in_background = VectorCache(args.vectors).embed_in_background
    model = Llama(str(args.model), n_ctx=CONTEXT, n_threads=args.threads, n_threads_batch=args.threads, verbose=False)
    conversations = [
        own for own in retrieval_data.own(retrieval_data.FOLDER) if args.only is None or own.name in args.only
    ]
    if args.qmsum:
        conversations += retrieval_data.meetings(args.qmsum)[1 : 2 * args.meetings : 2]
    totals = Counter[str]()
    with (args.results / "answers.jsonl").open("w", encoding="utf-8") as file:
        for row in rows(model, conversations, each=args.each, top_k=args.top_k):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            cited = {*row["labels"], *(part["label"] for part in row["attributions"])}
            totals.update(
                answers=1,
                with_sources=bool(row["sources"]),
                with_labels=bool(row["labels"]),
                with_attributions=bool(row["attributions"]),
                cited=bool(cited),
                cited_a_right_one=bool(cited & set(row["right"])),
                had_a_right_one=bool(row["right"]),
            )
            print(json.dumps(totals), flush=True)


if __name__ == "__main__":
    main()
