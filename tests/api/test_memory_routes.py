"""The RAG service's endpoints over the built-in store, field for field, and bad input for each of them."""

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st
from pytest_django import Settings

from chat.rag.models import Note, Segment, Transcript
from chat.rag.records import TranscriptIn
from chat.schemas.memories import bodies as memory_bodies
from tests.api.calling import Api

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.databases]

SEGMENTS: list[dict[str, Any]] = [
    {
        "text": "We cannot make the deadline on Friday.",
        "speaker": "Sarah",
        "start_time": 12.5,
        "end_time": 15.0,
        "emotion": "worried",
        "emotion_confidence": 0.8,
        "emotion_scores": {"worried": 0.8, "calm": 0.2},
        "audio_metrics": {"pitch": 210.5},
    },
    {"text": "The cake was delicious, though.", "speaker": "John", "start_time": 16, "end_time": 18},
]
MEETING = {
    "job_id": "job-1",
    "session_id": "session-1",
    "full_text": "We cannot make the deadline on Friday. The cake was delicious, though.",
    "audio_duration": 20.0,
    "created_at": "2026-03-01T14:00:00Z",
    "segments": SEGMENTS,
}
NOTE = {"title": "Budget", "body": "The budget was approved by the board.", "metadata": {"by": "Ann"}}


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def filled(api: Api) -> Api:
    assert api.post("/index/transcript", MEETING).status == 200
    assert api.post("/memory/add", NOTE).status == 200
    return api


def test_segments_without_text_are_skipped_and_counted(api: Api) -> None:
    blanks: list[dict[str, Any]] = [
        {"text": text, "speaker": "John"} for text in ("", " ", "\n\t", "\u00a0", "\u200b\ufeff", None)
    ]
    blanks.append({"speaker": "John"})
    segments = [blanks[0], SEGMENTS[0], *blanks[1:], SEGMENTS[1]]
    reply = api.post("/index/transcript", MEETING | {"segments": segments}).body
    assert (reply["success"], reply["segments_indexed"], reply["segments_skipped"]) == (True, 2, 7)
    assert [segment.position for segment in Segment.objects.order_by("position")] == [1, 8]
    none_left = api.post("/index/transcript", MEETING | {"segments": blanks}).body
    assert (none_left["segments_indexed"], none_left["segments_skipped"]) == (0, 7)


def test_a_segments_measures(api: Api) -> None:
    metrics = {"pitch_mean": 180.5, "volume_rms": 0.2, "pace_wpm": 140, "noise": 1, "seq": "no"}
    second = SEGMENTS[1] | {"audio_metrics": metrics}
    api.post("/index/transcript", MEETING | {"segments": [SEGMENTS[0], second]})
    hits = api.post("/search/semantic", {"query": "deadline on Friday or delicious cake", "top_k": 5}).body["results"]
    first_of, second_of = sorted((hit["metadata"] for hit in hits), key=lambda metadata: metadata["seq"])
    assert (first_of["seq"], first_of["word_count"], first_of["pause_ms"]) == (0, 7, None)
    n_secs = SEGMENTS[0]["end_time"] - SEGMENTS[0]["start_time"]
    assert first_of["pace_wpm"] == round(7 * 60 / n_secs, 1)
    pause_secs = SEGMENTS[1]["start_time"] - SEGMENTS[0]["end_time"]
    assert (second_of["seq"], second_of["pause_ms"]) == (1, round(pause_secs * 1000))
    assert (second_of["pitch_mean"], second_of["volume_rms"], second_of["pace_wpm"]) == (180.5, 0.2, 140)
    assert "noise" not in second_of


def test_a_long_recording_is_found_by_its_words_at_once(api: Api) -> None:
    long = {"job_id": "long", "segments": [{"text": f"the harbour budget {n} " * 20} for n in range(40)]}
    reply = api.post("/index/transcript", long).body
    assert (reply["segments_indexed"], reply["vectors_pending"]) == (40, 40)
    found = api.post("/search/semantic", {"query": "harbour budget 7"}).body["results"]
    assert found[0]["text"].startswith("the harbour budget 7 ")
    assert "40 texts wait for their vectors" in api.get("/health").body["rag_service"]["detail"]


def test_indexing_and_again(api: Api) -> None:
    answer = api.post("/index/transcript", MEETING)
    transcript_id = str(Transcript.objects.get().pk)
    assert (answer.status, answer.body) == (
        200,
        {
            "success": True,
            "transcript_id": transcript_id,
            "job_id": "job-1",
            "segments_indexed": 2,
            "segments_skipped": 0,
            "vectors_pending": 0,
        },
    )
    shorter = MEETING | {"segments": SEGMENTS[:1]}
    assert api.post("/index/transcript", shorter).body["segments_indexed"] == 1
    assert (Transcript.objects.count(), Segment.objects.count()) == (1, 1)


def test_searching(filled: Api) -> None:
    answer = filled.post("/search/semantic", {"query": "Can we make the deadline?", "top_k": 5, "doc_type": None})
    assert answer.status == 200
    assert set(answer.body) == {"success", "query", "count", "results"}
    assert (answer.body["success"], answer.body["query"]) == (True, "Can we make the deadline?")
    assert answer.body["count"] == len(answer.body["results"])
    hit = answer.body["results"][0]
    assert set(hit) == {"id", "text", "type", "score", "metadata"}
    assert (hit["type"], hit["id"]) == ("transcript_segment", f"segment-{Segment.objects.get(position=0).pk}")
    assert "deadline on Friday" in hit["text"]
    found = hit["metadata"]
    assert (found["speaker"], found["emotion"], found["emotion_confidence"]) == ("Sarah", "worried", 0.8)
    assert (found["start_time"], found["end_time"], found["job_id"]) == (12.5, 15.0, "job-1")
    assert found["transcript_id"] == str(Transcript.objects.get().pk)
    assert found["segment_id"] == str(Segment.objects.get(position=0).pk)
    assert (found["created_at"], found["audio_metrics"]) == ("2026-03-01T14:00:12.500000+00:00", {"pitch": 210.5})


def test_searching_in_the_older_form(filled: Api) -> None:
    answer = filled.post("/search", {"query": "Can we make the deadline?"})
    assert set(answer.body) == {"results", "total_results", "query_embedding_time", "search_time"}
    assert answer.body["total_results"] == len(answer.body["results"])
    assert answer.body["search_time"] > 0
    hit = answer.body["results"][0]
    assert set(hit) == {"doc_id", "doc_type", "text", "speaker", "score", "metadata"}
    assert (hit["doc_type"], hit["speaker"]) == ("transcript_segment", "Sarah")
    assert (hit["metadata"]["timestamp"], hit["metadata"]["emotion"]) == ("2026-03-01T14:00:12.500000+00:00", "worried")


def test_one_kind_or_one_speaker(filled: Api) -> None:
    def found(**more: object) -> set[str]:
        return {
            hit["type"] for hit in filled.post("/search/semantic", {"query": "what happened"} | more).body["results"]
        }

    assert found(doc_type="memory") == {"memory"}
    assert found(doc_type="transcript_segment") == {"transcript_segment"}
    assert found(speakers=["Nobody Known"]) == set()
    named = filled.post("/search/semantic", {"query": "what happened", "speakers": ["John"]}).body["results"]
    assert {hit["metadata"]["speaker"] for hit in named} == {"John"}


def test_notes(filled: Api) -> None:
    memory_id = str(Note.objects.get().pk)
    answer = filled.post("/memory/search", {"query": "how much money", "limit": 3})
    [hit] = answer.body["results"]
    assert (hit["memory_id"], hit["title"], hit["body"]) == (memory_id, NOTE["title"], NOTE["body"])
    assert (hit["type"], hit["metadata"]["metadata"]) == ("memory", {"by": "Ann"})
    listed = filled.get("/memory/list").body
    assert (listed["success"], listed["count"]) == (True, 1)
    assert set(listed["memories"][0]) == {"memory_id", "title", "body", "metadata", "created_at"}
    assert filled.get("/memory/list?offset=1").body["memories"] == []
    assert filled.call("DELETE", f"/memory/{memory_id}").body == {"success": True, "memory_id": memory_id}
    assert filled.call("DELETE", f"/memory/{memory_id}").outcome == (404, "not_found")
    assert filled.post("/memory/search", {"query": "how much money"}).body["results"] == []


def test_statistics(filled: Api) -> None:
    reply = filled.get("/memory/stats").body
    assert (reply["memories"], reply["transcripts"], reply["segments"]) == (1, 1, 2)
    assert reply["total_memories"] == 1
    assert reply["embeddings"] == {"available": True, "dimensions": 384, "detail": ""}


def test_transcripts(filled: Api) -> None:
    filled.post("/index/transcript", MEETING | {"job_id": "a/b", "created_at": "2026-02-01", "segments": []})
    recent = filled.get("/transcripts/recent").body
    assert [(each["job_id"], each["segment_count"]) for each in recent["transcripts"]] == [("job-1", 2), ("a/b", 0)]
    assert filled.get("/transcripts/recent?limit=1").body["count"] == 1
    assert filled.get("/transcripts/speakers").body == {"success": True, "speakers": ["John", "Sarah"], "count": 2}
    one = filled.get("/transcript/job-1").body
    assert (one["job_id"], one["session_id"], one["audio_duration"]) == ("job-1", "session-1", 20.0)
    assert one["full_text"] == MEETING["full_text"]
    assert one["segments"][0] == SEGMENTS[0] | {"segment_id": str(Segment.objects.get(position=0).pk)}
    assert one["transcript"] == {name: one[name] for name in set(one) - {"success", "transcript"}}
    listed = {each["job_id"]: each for each in recent["transcripts"]}
    assert listed["job-1"] == one["transcript"]
    assert (one["speakers"], one["dominant_emotion"]) == (["John", "Sarah"], EMOTION)
    assert one["timestamp"] == one["created_at"]
    assert (listed["a/b"]["speakers"], listed["a/b"]["dominant_emotion"], listed["a/b"]["segments"]) == ([], "", [])
    assert filled.get("/transcript/a/b").body["segment_count"] == 0
    assert filled.call("DELETE", "/transcript/a/b").body == {"success": True, "job_id": "a/b"}
    assert filled.get("/transcript/a/b").outcome == (404, "not_found")


@pytest.mark.parametrize("job_id", ["a\nb", "a\r\nb", "a\u2028b", "a/\x0b"])
def test_a_job_id_with_line_breaks(job_id: str, filled: Api) -> None:
    filled.post("/index/transcript", MEETING | {"job_id": job_id, "segments": []})
    path = f"/transcript/{quote(job_id)}"
    assert filled.get(path).body["job_id"] == job_id
    assert filled.call("DELETE", path).body == {"success": True, "job_id": job_id}


EMOTION = str(SEGMENTS[0]["emotion"])


@pytest.mark.parametrize(
    ("filters", "count", "transcripts"),
    [
        ({}, 6, 3),
        ({"speakers": ["sarah"]}, 3, 3),
        ({"speakers": ["Nobody"]}, 0, 0),
        ({"start_date": "2026-03-02"}, 2, 1),
        ({"start_date": "2026-03-01", "end_date": "2026-03-01"}, 2, 1),
        ({"end_date": "2026-03-01T13:59:59Z"}, 2, 1),
        ({"last_n_transcripts": 2}, 4, 2),
        ({"last_n_transcripts": 2, "speakers": ["John"]}, 2, 2),
        ({"emotions": [EMOTION]}, 3, 3),
        ({"emotions": [EMOTION.upper(), "bored"], "start_date": "2026-03-02"}, 1, 1),
        ({"bias_emotions": [EMOTION]}, 3, 3),
        ({"emotions": ["bored"]}, 0, 0),
    ],
)
def test_counting(filters: dict[str, object], count: int, transcripts: int, api: Api) -> None:
    for number, day in enumerate(("2026-02-01", "2026-03-01T14:00:00+00:00", "2026-04-01")):
        api.post("/index/transcript", MEETING | {"job_id": f"job-{number}", "created_at": day})
    counted = api.post("/transcripts/count", filters).body
    assert counted == {"success": True, "count": count, "transcripts": transcripts}


def segment(**changes: object) -> dict[str, object]:
    return MEETING | {"segments": [SEGMENTS[1], SEGMENTS[1] | changes]}


def search(**changes: object) -> dict[str, object]:
    return {"query": "x"} | changes


BAD: list[tuple[str, object, int, str | None]] = [
    ("/search/semantic", {}, 400, "query"),
    ("/search/semantic", search(query=""), 400, "query"),
    ("/search/semantic", search(query="  "), 400, "query"),
    ("/search/semantic", search(query=7), 400, "query"),
    ("/search/semantic", search(query="x" * 10_001), 400, "query"),
    ("/search/semantic", search(query="a\0b"), 400, "query"),
    ("/search/semantic", search(top_k=-2), 400, "top_k"),
    ("/search/semantic", search(top_k=2.5), 400, "top_k"),
    ("/search/semantic", search(top_k="ten"), 400, "top_k"),
    ("/search/semantic", search(top_k=True), 400, "top_k"),
    ("/search/semantic", search(doc_type="document"), 400, "doc_type"),
    ("/search/semantic", search(speakers=7), 400, "speakers"),
    ("/search/semantic", search(speakers=["Sarah", 7]), 400, "speakers[1]"),
    ("/search/semantic", search(start_date="yesterday"), 400, "start_date"),
    ("/search/semantic", search(start_date="2026-3-1"), 400, "start_date"),
    ("/search/semantic", search(start_date="2026-03-02", end_date="2026-03-01"), 400, "end_date"),
    ("/search/semantic", search(last_n_transcripts=-2), 400, "last_n_transcripts"),
    ("/search", search(top_k="x"), 400, "top_k"),
    ("/search", [], 400, None),
    ("/search", b"{", 400, None),
    ("/memory/search", search(limit=-7), 400, "limit"),
    ("/memory/search", search(limit=[]), 400, "limit"),
    ("/memory/add", {"title": "x"}, 400, "body"),
    ("/memory/add", {"body": "x"}, 400, "title"),
    ("/memory/add", NOTE | {"body": " \n "}, 400, "body"),
    ("/memory/add", NOTE | {"title": "x" * 301}, 400, "title"),
    ("/memory/add", NOTE | {"body": "x" * 100_001}, 400, "body"),
    ("/memory/add", NOTE | {"body": "x" * 2_000_000}, 413, None),
    ("/memory/add", NOTE | {"metadata": [1]}, 400, "metadata"),
    ("/memory/add", NOTE | {"metadata": {"a": "x" * 20_000}}, 400, "metadata"),
    ("/memory/add", NOTE | {"metadata": {"a": [[[[[[[[[1]]]]]]]]]}}, 400, "metadata"),
    ("/memory/add", NOTE | {"metadata": {"a": "\ud800"}}, 400, "metadata"),
    ("/index/transcript", MEETING | {"job_id": None}, 400, "job_id"),
    ("/index/transcript", MEETING | {"job_id": "x" * 201}, 400, "job_id"),
    ("/index/transcript", MEETING | {"job_id": 7}, 400, "job_id"),
    ("/index/transcript", MEETING | {"segments": None}, 400, "segments"),
    ("/index/transcript", MEETING | {"segments": {}}, 400, "segments"),
    ("/index/transcript", MEETING | {"segments": ["x"]}, 400, "segments[0]"),
    ("/index/transcript", MEETING | {"audio_duration": -1}, 400, "audio_duration"),
    ("/index/transcript", MEETING | {"created_at": "soon"}, 400, "created_at"),
    ("/index/transcript", MEETING | {"created_at": "0001-01-01T00:00:00+05:00"}, 400, "created_at"),
    ("/index/transcript", MEETING | {"created_at": "2026-03-01T14:00:00 Europe/Atlantis"}, 400, "created_at"),
    ("/index/transcript", MEETING | {"segments": [SEGMENTS[0]] * 499 + [{"text": 7}]}, 400, "segments[499].text"),
    ("/index/transcript", segment(text="x" * 1_000_000), 400, "segments[1].text"),
    ("/index/transcript", segment(speaker={"name": "Sarah"}), 400, "segments[1].speaker"),
    ("/index/transcript", segment(start_time="12"), 400, "segments[1].start_time"),
    ("/index/transcript", segment(start_time=1e308), 400, "segments[1].start_time"),
    ("/index/transcript", segment(emotion_scores=[0.5]), 400, "segments[1].emotion_scores"),
    ("/transcripts/count", {"start_date": "2026-03-02", "end_date": "2026-03-01"}, 400, "end_date"),
    ("/transcripts/count", {"speakers": 7}, 400, "speakers"),
]


@pytest.mark.parametrize(("path", "body", "status", "field"), BAD)
def test_bad_input_is_named_and_leaves_nothing(
    path: str, body: object, status: int, field: str | None, api: Api
) -> None:
    answer = api.post(path, body)
    assert (answer.status, answer.body["error"].get("field")) == (status, field), answer.body
    assert answer.body["error"]["message"]
    assert not Transcript.objects.exists()
    assert not Note.objects.exists()


def test_too_many_segments(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    body = MEETING | {"segments": [{"text": "x"}] * 10_001}
    error = api.post("/index/transcript", body).body["error"]
    assert (error["field"], error["message"]) == ("segments", "segments must have at most 10000 entries")


def test_dates_of_one_day_are_in_order(api: Api) -> None:
    body = search(start_date="2026-03-01T15:00:00", end_date="2026-03-01")
    assert api.post("/search/semantic", body).status == 200


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/memory/list?limit=-2", "limit"),
        ("/memory/list?limit=many", "limit"),
        ("/memory/list?limit=2.5", "limit"),
        ("/memory/list?limit=1e2", "limit"),
        ("/memory/list?limit=-" + "9" * 40, "limit"),
        ("/memory/list?offset=-1", "offset"),
        ("/memory/list?offset=" + "-" + "0" * 9 + "1", "offset"),
        ("/transcripts/recent?limit=%D9%A5", "limit"),
    ],
)
def test_bad_numbers_in_the_address(path: str, field: str, api: Api) -> None:
    answer = api.get(path)
    assert (answer.status, answer.body["error"]["field"]) == (400, field)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/transcript/unknown"),
        ("DELETE", "/transcript/unknown"),
        ("DELETE", "/memory/7"),
        ("DELETE", "/memory/x"),
        ("DELETE", "/memory/\u0667"),
        ("DELETE", f"/memory/{'9' * 40}"),
    ],
)
def test_what_is_not_there(method: str, path: str, api: Api) -> None:
    assert api.call(method, path).outcome == (404, "not_found")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/search/semantic"), ("POST", "/memory/list"), ("PUT", "/memory/7")]
)
def test_a_method_that_is_not_served(method: str, path: str, api: Api) -> None:
    assert api.call(method, path).outcome == (405, "method_not_allowed")


def test_a_recording_of_many_hours_fits(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body beyond REQUEST_MAX_BYTES, whose stored part does not matter."""
    taken: list[TranscriptIn] = []
    index = memory_bodies.transcript_in

    def first_only(data: object) -> TranscriptIn:
        taken.append(index(data))
        return index(MEETING)

    monkeypatch.setattr(memory_bodies, "transcript_in", first_only)
    long = SEGMENTS[0] | {"text": "word " * 60}
    assert api.post("/index/transcript", MEETING | {"segments": [long] * 3000}).status == 200
    assert len(taken[0].segments) == 3000


def test_a_larger_one_is_refused(api: Api, settings: Settings) -> None:
    settings.TRANSCRIPT_MAX_BYTES = 2000
    answer = api.post("/index/transcript", MEETING | {"segments": SEGMENTS * 10})
    assert answer.outcome == (413, "body_too_large")
    assert answer.body["error"]["max_bytes"] == 2000


NAMES = ["query", "top_k", "limit", "doc_type", "speakers", "start_date", "end_date", "last_n_transcripts"]
NAMES += [
    "bias_emotions",
    "title",
    "body",
    "metadata",
    "job_id",
    "segments",
    "text",
    "speaker",
    "start_time",
    "created_at",
]
TEXTS = st.sampled_from(
    [
        "x",
        "",
        "latest",
        "memory",
        "2026-03-01",
        "9999-12-31T23:59:59.999999",
        "9999-12-31",
        "0001-01-01",
        "\x00",
        '"',
        "AND OR (",
    ]
)
ATOMS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | TEXTS
VALUES = st.recursive(
    ATOMS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6)
)
PATHS = ["/search/semantic", "/search", "/memory/search", "/memory/add", "/index/transcript", "/transcripts/count"]


@profile(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(PATHS), body=st.dictionaries(st.sampled_from(NAMES), VALUES | TEXTS, max_size=8))
def test_no_body_brings_it_down(path: str, body: dict[str, object], api: Api) -> None:
    answer = api.post(path, body)
    assert answer.status in (200, 400), (answer.status, answer.body)
