"""Importing, deleting and searching at once: nothing twice, nothing half, no error for who searches."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection
from pytest_django import Settings

from chat.rag.indexing.indexer import delete_transcript, index_transcripts
from chat.rag.models import Passage, Segment, Transcript
from chat.rag.records import TranscriptIn
from chat.rag.search import hybrid
from tests.rag.builders import NOW, ask, line

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.databases,
    pytest.mark.usefixtures("words_as_vectors"),
]
N_RECORDINGS = 30


def at_once(*works: Callable[[], None]) -> None:
    """Run all on threads of their own; what one raises is raised here."""

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(works)) as threads:
        for future in [threads.submit(run, work) for work in works]:
            future.result()


def recordings(version: str) -> list[TranscriptIn]:
    return [
        TranscriptIn(job_id=f"job-{n}", segments=(line(f"budget {n} {version}"), line("rent")), recorded_at=NOW)
        for n in range(N_RECORDINGS)
    ]


def import_one_by_one(version: str) -> None:
    for recording in recordings(version):
        assert len(list(index_transcripts(owner="", transcripts=[recording]))) == 1


def test_two_imports_of_the_same_at_once() -> None:
    at_once(lambda: import_one_by_one("first"), lambda: import_one_by_one("second"))
    assert Transcript.objects.count() == N_RECORDINGS
    assert Segment.objects.count() == Passage.objects.count() == 2 * N_RECORDINGS
    for n in range(N_RECORDINGS):
        versions = Segment.objects.filter(transcript__job_id=f"job-{n}").exclude(text="rent")
        assert versions.get().text in {f"budget {n} first", f"budget {n} second"}


def test_searching_while_all_is_deleted_and_comes_back(settings: Settings) -> None:
    # The locks of the writers and a loaded machine may delay a search for longer than a chat turn would wait.
    settings.RAG_TIMEOUT_SECS = 60.0
    import_one_by_one("first")
    done = threading.Event()
    n_searches = 0

    def delete_and_bring_back() -> None:
        try:
            for recording in recordings("second"):
                assert delete_transcript(owner="", job_id=recording.job_id)
                list(index_transcripts(owner="", transcripts=[recording]))
        finally:
            done.set()

    def search_on() -> None:
        nonlocal n_searches
        while not done.is_set():
            result = ask("budget", top_k=50)
            assert result.error == ""
            assert all(source.text.startswith("budget") for source in result.sources if "budget" in source.text)
            n_searches += 1

    at_once(delete_and_bring_back, search_on)
    assert n_searches > 0
    assert {source.text for source in ask("budget", top_k=100).sources if "budget" in source.text} == {
        f"budget {n} second" for n in range(N_RECORDINGS)
    }
    # The index that went through all this holds what one that begins now would hold.
    before = hybrid.INDEX.fresh()
    hybrid.INDEX.clear()
    after = hybrid.INDEX.fresh()
    assert before.columns.id[before.columns.is_alive].tolist() == after.columns.id.tolist()
