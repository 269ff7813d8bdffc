"""Routes of the stack's RAG service over the built-in store: segments, emotions, moments, the time they cover."""

import threading
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from chat.errors import Unavailable
from chat.rag.models import Segment, Transcript
from chat.schemas.stack.emotions import MAX_SHOWN, SHOWN
from chat.services import turns
from tests.api.calling import Api

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.databases]
Json = dict[str, Any]

LINES = [
    ("Ann", "joy", "The Harbour opens on Monday."),
    ("Bob", "", "Über alles Weitere reden wir."),
    ("Ann", "anger", "The budget is gone, 100% of it."),
    ("Bob", "Joy", "We sail at noon_time."),
    ("Ann", "fear", "A storm is coming."),
]


def recording(job_id: str, created_at: str, lines: list[tuple[str, str, str]] = LINES) -> Json:
    segments = [
        {
            "speaker": speaker,
            "emotion": emotion,
            "text": text,
            "start_time": 10.0 * number,
            "end_time": 10.0 * number + 5,
            "emotion_confidence": 0.5 + number / 10,
            "audio_metrics": {"pitch_mean": 100 + number},
        }
        for number, (speaker, emotion, text) in enumerate(lines)
    ]
    return {"job_id": job_id, "created_at": created_at, "segments": segments}


@pytest.fixture
def api() -> Api:
    api = Api()
    for number, day in enumerate(("2026-02-01T10:00:00Z", "2026-03-01T10:00:00Z")):
        assert api.post("/index/transcript", recording(f"job-{number}", day)).status == 200
    return api


def texts(answer: Json) -> list[str]:
    return [item["text"] for item in answer["items"]]


class TestSegments:
    def test_the_fields(self, api: Api) -> None:
        answer = api.post("/transcripts/query", {"limit": 2, "context_lines": 1, "keywords": "budget"}).body
        assert set(answer) == {
            *("success", "items", "count", "total", "has_more", "next_offset", "sort_by", "order"),
        }
        item = answer["items"][0]
        row = Segment.objects.get(transcript__job_id="job-1", position=2)
        assert item == {
            "segment_id": str(row.pk),
            "transcript_id": str(row.transcript_id),
            "job_id": "job-1",
            "speaker": "Ann",
            "emotion": "anger",
            "emotion_confidence": 0.7,
            "text": LINES[2][2],
            "created_at": "2026-03-01T10:00:20+00:00",
            "start_time": 20.0,
            "end_time": 25.0,
            "context_before": [{"speaker": "Bob", "text": LINES[1][2], "emotion": ""}],
            "context_after": [{"speaker": "Bob", "text": LINES[3][2], "emotion": "Joy"}],
        }
        assert (answer["count"], answer["total"], answer["has_more"]) == (2, 2, False)

    def test_pages(self, api: Api) -> None:
        seen: list[str] = []
        offset, has_more = 0, True
        while has_more:
            page = api.post("/transcripts/query", {"limit": 3, "offset": offset}).body
            assert page["total"] == 10
            seen += [item["segment_id"] for item in page["items"]]
            offset, has_more = page["next_offset"], page["has_more"]
        assert len(seen) == len(set(seen)) == 10
        assert api.post("/transcripts/query", {"offset": 10**12}).body["items"] == []

    def test_the_newest_recording_comes_first_each_as_it_was_said(self, api: Api) -> None:
        items = api.post("/transcripts/query", {}).body["items"]
        assert [(item["job_id"], item["text"]) for item in items] == [
            (job, line[2]) for job in ("job-1", "job-0") for line in LINES
        ]

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            ({"keywords": "harbour"}, [0]),
            ({"keywords": "über"}, [1]),
            ({"keywords": "ÜBER"}, [1]),
            ({"keywords": "harbour, storm"}, [0, 4]),
            ({"keywords": ["the", "budget"], "match": "all"}, [2]),
            ({"keywords": "the,budget", "match": "any"}, [0, 2]),
            ({"keywords": "100%"}, [2]),
            ({"keywords": "noon_time"}, [3]),
            ({"keywords": "noonxtime"}, []),
            ({"keywords": " , "}, [0, 1, 2, 3, 4]),
            ({"emotions": ["joy"]}, [0, 3]),
            ({"emotions": "JOY", "speakers": "bob"}, [3]),
            ({"speakers": ["ann"]}, [0, 2, 4]),
            ({"speakers": ["Nobody"]}, []),
            ({"start_date": "2026-04-01"}, []),
            ({"start_date_utc": "2026-03-01T10:00:25"}, [3, 4]),
            ({"end_date_utc": "2026-03-01T11:00:15+01:00", "start_date": "2026-03-01"}, [0, 1]),
        ],
    )
    def test_filters(self, api: Api, body: Json, expected: list[int]) -> None:
        answer = api.post("/transcripts/query", body | {"last_n_transcripts": 1}).body
        assert texts(answer) == [LINES[number][2] for number in expected]
        assert answer["total"] == len(expected)

    @pytest.mark.parametrize(
        ("sort_by", "order", "first"),
        [
            ("created_at", "asc", ("job-0", 0)),
            ("created_at", "desc", ("job-1", 0)),
            ("job_id", "asc", ("job-0", 0)),
            ("job_id", "desc", ("job-1", 0)),
            ("speaker", "asc", ("job-1", 0)),
            ("speaker", "desc", ("job-1", 1)),
            ("emotion", "asc", ("job-1", 1)),
            ("emotion", "desc", ("job-1", 0)),
            ("start_time", "asc", ("job-1", 0)),
            ("start_time", "desc", ("job-1", 4)),
        ],
    )
    def test_orders(self, api: Api, sort_by: str, order: str, first: tuple[str, int]) -> None:
        answer = api.post("/transcripts/query", {"sort_by": sort_by, "order": order, "speakers": ["ann", "bob"]}).body
        item = answer["items"][0]
        assert (item["job_id"], item["text"]) == (first[0], LINES[first[1]][2])
        assert (answer["sort_by"], answer["order"]) == (sort_by, order)

    @pytest.mark.parametrize(
        ("sent", "n_before", "n_after"),
        [({}, 2, 2), ({"context_lines": 0}, 0, 0), ({"context_lines": "1"}, 1, 1), ({"context_lines": 500}, 2, 2)],
    )
    def test_lines_around(self, api: Api, sent: Json, n_before: int, n_after: int) -> None:
        item = api.post("/transcripts/query", {"keywords": "budget", "limit": 1} | sent).body["items"][0]
        before, after = item["context_before"], item["context_after"]
        assert [line["text"] for line in before] == [line[2] for line in LINES[2 - n_before : 2]]
        assert [line["text"] for line in after] == [line[2] for line in LINES[3 : 3 + n_after]]

    def test_lines_around_a_gap_of_blank_segments(self, api: Api) -> None:
        blanks = [("Ann", "", "")] * 20
        api.post("/index/transcript", recording("gap", "2026-04-01", [LINES[0], *blanks, LINES[2]]))
        item = api.post("/transcripts/query", {"keywords": "budget", "limit": 1}).body["items"][0]
        assert [line["text"] for line in item["context_before"]] == [LINES[0][2]]

    def test_by_meaning(self, api: Api) -> None:
        body = {"keywords": "ships leave the port", "search_type": "semantic", "limit": 3, "last_n_transcripts": 1}
        answer = api.post("/transcripts/query", body).body
        assert {LINES[0][2], LINES[3][2]} & set(texts(answer))
        assert all(isinstance(item["score"], float) for item in answer["items"])
        assert {item["job_id"] for item in answer["items"]} == {"job-1"}

    @pytest.mark.parametrize(
        ("limit", "n_items"),
        [(0, 20), (-1, 200), (201, 200), (10**15, 200), ("7", 7), (None, 20), ("", 20), (200.0, 200)],
    )
    def test_sizes(self, api: Api, limit: object, n_items: int) -> None:
        many = [("Ann", "", f"line {number}") for number in range(250)]
        api.post("/index/transcript", recording("many", "2026-05-01", many))
        assert api.post("/transcripts/query", {"limit": limit, "context_lines": 0}).body["count"] == n_items

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"limit": -2}, "limit"),
            ({"limit": "many"}, "limit"),
            ({"offset": -1}, "offset"),
            ({"offset": 1.5}, "offset"),
            ({"context_lines": "x"}, "context_lines"),
            ({"sort_by": "mood"}, "sort_by"),
            ({"order": "up"}, "order"),
            ({"match": 1}, "match"),
            ({"keywords": 7}, "keywords"),
            ({"keywords": ["a", 7]}, "keywords[1]"),
            ({"keywords": "x," * 51}, "keywords"),
            ({"start_date_utc": "soon"}, "start_date_utc"),
            ({"search_type": "magic"}, "search_type"),
        ],
    )
    def test_what_means_nothing_is_named(self, api: Api, body: Json, field: str) -> None:
        answer = api.post("/transcripts/query", body)
        assert (answer.status, answer.body["error"]["field"]) == (400, field)


class TestEmotions:
    def test_all_of_them_by_day(self, api: Api) -> None:
        answer = api.get("/memory/emotions/stats").body
        counts = {"joy": 2, "anger": 1, "fear": 1}
        assert answer == {
            "success": True,
            "start_date": None,
            "end_date": None,
            "total_analyzed": 8,
            "emotions": [{"emotion": name, "count": 2 * count} for name, count in counts.items()],
            "timeline": [{"date": day, "counts": counts} for day in ("2026-02-01", "2026-03-01")],
        }

    def test_of_a_span(self, api: Api) -> None:
        answer = api.get("/memory/emotions/stats?start_date=2026-02-10&end_date=2026-03-01").body
        assert (answer["start_date"], answer["end_date"], answer["total_analyzed"]) == ("2026-02-10", "2026-03-01", 4)
        assert [day["date"] for day in answer["timeline"]] == ["2026-03-01"]
        assert api.get("/memory/emotions/stats?start_date=&end_date=").body["total_analyzed"] == 8

    @pytest.mark.parametrize(
        ("query", "field"),
        [("start_date=soon", "start_date"), ("start_date=2026-02-02&end_date=2026-02-01", "end_date")],
    )
    def test_a_span_that_is_none(self, api: Api, query: str, field: str) -> None:
        answer = api.get(f"/memory/emotions/stats?{query}")
        assert (answer.status, answer.body["error"]["field"]) == (400, field)

    @pytest.mark.parametrize(
        ("period", "days", "is_inside"),
        [
            ("today", 0, True),
            ("", 0, True),
            ("today", 1, False),
            ("week", 6, True),
            ("week", 8, False),
            ("month", 29, True),
            ("month", 31, False),
            ("all", 400, True),
        ],
    )
    def test_periods(self, period: str, days: int, is_inside: bool) -> None:
        api = Api()
        at: datetime = timezone.localtime().replace(hour=0, minute=0, second=1) - timedelta(days=days)
        api.post("/index/transcript", recording("now", at.isoformat(), LINES[:1]))
        answer = api.get(f"/emotions/stats?period={period}").body
        assert (answer["total_analyzed"], answer["period"]) == (int(is_inside), period or "today")

    def test_totals_of_a_period(self, api: Api) -> None:
        answer = api.get("/emotions/stats?period=all&user_id=7").body
        assert answer["emotion_totals"] == {"joy": 4, "neutral": 2, "anger": 2, "fear": 2}
        assert (answer["joy_count"], answer["negative_count"], answer["total_analyzed"]) == (4, 4, 10)
        paces = [len(line[2].split()) * 12 for line in LINES]
        assert answer["avg_pace_wpm"] == pytest.approx(sum(paces) / len(paces), abs=0.1)
        assert answer["avg_pitch_mean"] == 102.0

    def test_over_time_and_by_speaker(self, api: Api) -> None:
        answer = api.get("/emotions/analytics?period=all").body
        assert answer["summary"] == api.get("/emotions/stats?period=all").body
        assert answer["timeline"] == {
            "labels": ["2026-02", "2026-03"],
            "emotions": {"joy": [2, 2], "anger": [1, 1], "sadness": [0, 0], "neutral": [1, 1], "fear": [1, 1]},
        }
        by_name = {speaker["speaker"]: speaker for speaker in answer["speakers"]}
        assert [speaker["speaker"] for speaker in answer["speakers"]] == ["Ann", "Bob"]
        assert (by_name["Ann"]["segments"], by_name["Bob"]["segments"]) == (6, 4)
        assert by_name["Bob"]["speech_metrics"]["pitch_mean"] == 102.0
        assert by_name["Bob"]["dominant_emotion"] in ("joy", "neutral")

    def test_many_speakers_are_not_compared_with_each_segment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        api, n_reads, n_speakers = Api(), [0], 60
        lines = [(f"speaker {number}", "joy", "Hello there.") for number in range(n_speakers)]
        api.post("/index/transcript", recording("many", "2026-02-01T10:00:00Z", lines))

        class Counted:
            def __get__(self, segment: Segment, owner: type[Segment]) -> object:
                n_reads[0] += 1
                return segment.__dict__["speaker"]

            def __set__(self, segment: Segment, value: str) -> None:
                segment.__dict__["speaker"] = value

        with monkeypatch.context() as patch:
            patch.setattr(Segment, "speaker", Counted())
            speakers = api.get("/emotions/analytics?period=all").body["speakers"]
        assert len(speakers) == n_speakers
        assert {speaker["speech_metrics"]["pace_wpm"] for speaker in speakers} == {24.0}
        assert n_reads[0] <= 3 * n_speakers

    def test_a_timeline_has_the_most_frequent_emotions(self) -> None:
        api = Api()
        lines = [("Ann", f"mood {number}", "Hello.") for number in range(2 * MAX_SHOWN)]
        lines += [("Ann", "rare first", "Hello."), *[("Ann", "late but frequent", "Hello.")] * 2]
        api.post("/index/transcript", recording("moods", "2026-02-01T10:00:00Z", lines))
        timeline = api.get("/emotions/analytics?period=all").body["timeline"]
        assert MAX_SHOWN <= len(timeline["emotions"]) <= MAX_SHOWN + len(SHOWN)
        assert timeline["emotions"]["late but frequent"] == [2]
        assert [timeline["emotions"][name] for name in SHOWN] == [[0]] * len(SHOWN)

    @pytest.mark.parametrize(("period", "label"), [("today", "T00:00"), ("week", ""), ("month", "")])
    def test_labels_of_a_period(self, period: str, label: str) -> None:
        api = Api()
        at: datetime = timezone.localtime().replace(hour=0, minute=0, second=1)
        api.post("/index/transcript", recording("now", at.isoformat(), LINES[:1]))
        timeline = api.get(f"/emotions/analytics?period={period}").body["timeline"]
        assert timeline["labels"] == [f"{at:%Y-%m-%d}{label}"]
        assert timeline["emotions"]["joy"] == [1]

    def test_nothing_stored(self) -> None:
        answer = Api().get("/emotions/analytics").body
        assert (answer["summary"]["total_analyzed"], answer["timeline"]["labels"], answer["speakers"]) == (0, [], [])

    def test_an_unknown_period(self, api: Api) -> None:
        answer = api.get("/emotions/stats?period=decade")
        assert (answer.status, answer.body["error"]["field"]) == (400, "period")

    def test_moments(self, api: Api) -> None:
        moments = api.get("/emotions/moments").body
        assert moments["count"] == len(moments["moments"]) == 10
        row = Segment.objects.get(transcript__job_id="job-1", position=4)
        assert moments["moments"][0] == {
            "id": str(row.pk),
            "timestamp": "2026-03-01T10:00:40+00:00",
            "speaker": "Ann",
            "emotion": "fear",
            "text": LINES[4][2],
            "confidence": 0.9,
            "start_time": 40.0,
            "job_id": "job-1",
        }

    @pytest.mark.parametrize(
        ("query", "n_moments"),
        [
            ("emotion=JOY", 4),
            ("emotion=all", 10),
            ("emotion=&speaker=", 10),
            ("speaker=bob", 4),
            ("emotion=joy&speaker=Ann", 2),
            ("emotion=bored", 0),
            ("limit=3", 3),
            ("limit=0", 10),
            ("limit=9999&offset=8", 2),
        ],
    )
    def test_moments_of_one(self, api: Api, query: str, n_moments: int) -> None:
        assert api.get(f"/emotions/moments?{query}").body["count"] == n_moments

    @pytest.mark.parametrize(
        ("query", "field"), [("limit=x", "limit"), ("offset=-1", "offset"), ("emotion=%00", "emotion")]
    )
    def test_moments_of_nothing(self, api: Api, query: str, field: str) -> None:
        answer = api.get(f"/emotions/moments?{query}")
        assert (answer.status, answer.body["error"]["field"]) == (400, field)


def test_the_time_that_recordings_cover(api: Api) -> None:
    answer = api.get("/debug/transcripts/time-range").body
    assert (answer["status"], answer["transcript_count"], answer["segment_count"]) == ("ok", 2, 10)
    assert answer["transcript_range"] == {"start": "2026-02-01T10:00:00+00:00", "end": "2026-03-01T10:00:00+00:00"}
    assert answer["segment_range"] == {"start": "2026-02-01T10:00:00+00:00", "end": "2026-03-01T10:00:40+00:00"}
    Transcript.objects.all().delete()
    empty = api.get("/debug/transcripts/time-range").body
    assert (empty["segment_count"], empty["segment_range"]) == (0, {"start": None, "end": None})


PATHS = ["/memory/emotions/stats", "/emotions/stats?period=all", "/emotions/moments", "/debug/transcripts/time-range"]
ANALYTICS = "/emotions/analytics?period=all"


def test_nobody_sees_the_memories_of_others(api: Api) -> None:
    other = Api()
    other.log_in(User.objects.create_user("bob"))
    numbers = [other.get(path).body for path in PATHS]
    assert [numbers[0]["total_analyzed"], numbers[1]["total_analyzed"], numbers[2]["count"]] == [0, 0, 0]
    assert numbers[3]["segment_count"] == 0
    assert other.get(ANALYTICS).body["speakers"] == []
    assert other.post("/transcripts/query", {}).body["total"] == 0
    assert other.post("/transcripts/query", {"keywords": "storm", "search_type": "semantic"}).body["total"] == 0


@pytest.mark.parametrize(("n_chars", "pool"), [(100, "gemma-web"), (30_000, "gemma-web-long")])
def test_a_long_prompt_of_a_short_body_is_encoded_apart(
    n_chars: int, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = Api()
    api.post("/index/transcript", recording("long", "2026-02-01T10:00:00Z", [("Ann", "", "x" * n_chars)]))
    pools: list[str] = []

    def start_turn(**request: object) -> None:
        pools.append(threading.current_thread().name.rpartition("_")[0])
        raise Unavailable("seen")

    monkeypatch.setattr(turns, "start_turn", start_turn)
    assert api.post("/analyze", {}).status == 503
    assert pools == [pool]


@pytest.mark.parametrize(("n_chars", "pool"), [(100, "gemma-web"), (30_000, "gemma-web-long")])
def test_long_texts_are_counted_apart(n_chars: int, pool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pools: list[str] = []

    def count(*request: object, **options: object) -> int:
        pools.append(threading.current_thread().name.rpartition("_")[0])
        return 7

    monkeypatch.setattr("chat.api.anthropic.views.count_prompt_tokens", count)
    answer = Api().post("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": "x" * n_chars}]})
    assert (answer.status, answer.body, pools) == (200, {"input_tokens": 7}, [pool])


OTHERS = ["/stats", "/models/list", "/settings"]
NOT_SERVED = ["/score-chunk", "/settings/update"]


@pytest.mark.parametrize("path", [*PATHS, ANALYTICS, *OTHERS])
def test_reading_needs_credentials_elsewhere(path: str) -> None:
    assert Api("203.0.113.7").get(path).outcome == (401, "not_authenticated")


@pytest.mark.parametrize("path", ["/transcripts/query", "/chat/rag", "/analyze", *NOT_SERVED])
def test_so_does_posting(path: str) -> None:
    assert Api("203.0.113.7").post(path, {}).outcome == (401, "not_authenticated")


@pytest.mark.parametrize("path", NOT_SERVED)
def test_what_is_not_served_says_why(path: str, api: Api) -> None:
    for body in ({}, b"no json", {"filters": {}, "chunk_content": "a"}):
        answer = api.post(path, body)
        assert answer.outcome == (501, "not_served")
        assert "this service" in answer.body["error"]["message"] or "environment" in answer.body["error"]["message"]
    assert api.get(path).outcome == (405, "method_not_allowed")


def test_without_a_worker_nothing_is_known_of_the_model(api: Api) -> None:
    stats = api.get("/stats").body
    assert (stats["model_loaded"], stats["model_name"], stats["queue_depth"]) == (False, None, 0)
    assert api.get("/models/list").body["models"] == []
    assert api.get("/settings").body["context_size"] is None
