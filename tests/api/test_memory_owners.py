"""Owners of memories: those of services are shared, those of users private, on every memory route."""

from collections.abc import Callable
from typing import Any

import pytest
from pytest_django import Settings

from chat.rag.models import Note, Transcript
from inference.auth import service_token
from tests.api.calling import Answer, Api
from tests.api.people import access_token, bearer, make_user

pytestmark = pytest.mark.django_db(transaction=True)
STRANGER = Api("203.0.113.7")
Headers = dict[str, str]


@pytest.fixture(autouse=True)
def _key(settings: Settings) -> None:
    settings.JWT_SECRET = "k" * 40


def service(name: str = "transcription-service") -> Headers:
    """A fresh token: each is good for one call."""
    return {"X-Service-Token": str(service_token.mint(name))}


@pytest.fixture
def ann() -> Headers:
    return bearer(access_token(make_user("ann")))


@pytest.fixture
def bob() -> Headers:
    return bearer(access_token(make_user("bob")))


def meeting(job_id: str, text: str) -> dict[str, Any]:
    return {"job_id": job_id, "segments": [{"text": text, "speaker": text.split()[0]}]}


def note(text: str) -> dict[str, Any]:
    return {"title": "A note", "body": text}


@pytest.fixture
def filled(ann: Headers) -> None:
    """A shared recording and note, and the same of Ann."""
    for headers, whose in ((service(), "Shared"), (ann, "Private")):
        assert STRANGER.post("/index/transcript", meeting(whose, f"{whose} words were said."), headers).status == 200
    for headers, whose in ((service(), "Shared"), (ann, "Private")):
        assert STRANGER.post("/memory/add", note(f"{whose} words were written."), headers).status == 200


READS: dict[str, Callable[[Headers], Answer]] = {
    "search": lambda headers: STRANGER.post("/search/semantic", {"query": "words", "top_k": 50}, headers),
    "older search": lambda headers: STRANGER.post("/search", {"query": "words", "top_k": 50}, headers),
    "search notes": lambda headers: STRANGER.post("/memory/search", {"query": "words"}, headers),
    "list notes": lambda headers: STRANGER.get("/memory/list", headers),
    "recent": lambda headers: STRANGER.get("/transcripts/recent", headers),
    "speakers": lambda headers: STRANGER.get("/transcripts/speakers", headers),
}


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("name", READS)
def test_one_sees_ones_own_and_what_is_shared(name: str, ann: Headers, bob: Headers) -> None:
    for headers, sees_private in ((ann, True), (bob, False), (service(), False)):
        text = str(READS[name](headers).body)
        assert "Shared" in text
        assert ("Private" in text) is sees_private


@pytest.mark.usefixtures("filled")
def test_counts_and_single_transcripts_too(ann: Headers, bob: Headers) -> None:
    for headers, count, status in ((ann, 2, 200), (bob, 1, 404)):
        assert STRANGER.post("/transcripts/count", {}, headers).body["count"] == count
        assert STRANGER.get("/memory/stats", headers).body["memories"] == count
        assert STRANGER.get("/transcript/Private", headers).status == status
        assert STRANGER.get("/transcript/Shared", headers).status == 200


@pytest.mark.usefixtures("filled")
def test_of_one_name_ones_own_comes_first(ann: Headers, bob: Headers) -> None:
    STRANGER.post("/index/transcript", meeting("Shared", "Ann says otherwise."), ann)
    assert Transcript.objects.filter(job_id="Shared").count() == 2
    assert STRANGER.get("/transcript/Shared", ann).body["segments"][0]["text"] == "Ann says otherwise."
    assert STRANGER.get("/transcript/Shared", bob).body["segments"][0]["text"] == "Shared words were said."


@pytest.mark.usefixtures("filled")
def test_who_deletes_what(ann: Headers, bob: Headers) -> None:
    shared, private = (str(Note.objects.get(body__startswith=whose).pk) for whose in ("Shared", "Private"))
    for path, expected in (
        (f"/memory/{private}", (404, "not_found")),
        ("/transcript/Private", (404, "not_found")),
        (f"/memory/{shared}", (403, "shared_memory")),
        ("/transcript/Shared", (403, "shared_memory")),
    ):
        assert STRANGER.call("DELETE", path, headers=bob).outcome == expected
    assert (Note.objects.count(), Transcript.objects.count()) == (2, 2)
    for path in (f"/memory/{private}", "/transcript/Private"):
        assert STRANGER.call("DELETE", path, headers=ann).status == 200
    for path in (f"/memory/{shared}", "/transcript/Shared"):
        assert STRANGER.call("DELETE", path, headers=service()).status == 200
    assert (Note.objects.count(), Transcript.objects.count()) == (0, 0)


@pytest.mark.usefixtures("filled")
def test_nobody_is_somebody_else_by_saying_so(ann: Headers, bob: Headers) -> None:
    owner = Note.objects.get(body__startswith="Private").owner
    claims = {"owner": owner, "user": owner, "user_id": owner, "shared": True}
    assert "Private" not in str(STRANGER.post("/search/semantic", {"query": "words", "top_k": 50} | claims, bob).body)
    assert STRANGER.post("/memory/add", note("Forged words.") | claims, bob).status == 200
    assert STRANGER.post("/index/transcript", meeting("Private", "Forged too.") | claims, bob).status == 200
    assert "Forged" not in str([read(ann).body for read in READS.values()])
    assert STRANGER.get("/transcript/Private", ann).body["segments"][0]["text"] == "Private words were said."


@pytest.mark.usefixtures("filled")
def test_staff_may_delete_what_is_shared() -> None:
    boss = make_user("boss")
    boss.is_staff = True
    boss.save()
    assert STRANGER.call("DELETE", "/transcript/Shared", headers=bearer(access_token(boss))).status == 200


def test_what_nobody_in_particular_adds_here_stays_here() -> None:
    here = Api()
    assert here.post("/memory/add", note("Local words.")).status == 200
    assert "Local words." in str(here.get("/memory/list").body)
    assert "Local words." not in str(STRANGER.get("/memory/list", service()).body)


ROUTES = [
    ("POST", "/search/semantic"),
    ("POST", "/search"),
    ("POST", "/index/transcript"),
    ("POST", "/memory/add"),
    ("GET", "/memory/list"),
    ("POST", "/memory/search"),
    ("GET", "/memory/stats"),
    ("DELETE", "/memory/1"),
    ("GET", "/transcripts/recent"),
    ("GET", "/transcripts/speakers"),
    ("POST", "/transcripts/count"),
    ("GET", "/transcript/x"),
    ("DELETE", "/transcript/x"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_who_may_not_call(method: str, path: str, settings: Settings) -> None:
    used = service()
    assert STRANGER.get("/memory/stats", used).status == 200
    for headers in ({}, used, {"X-Service-Token": "x.y"}, service("somebody"), bearer("x")):
        assert STRANGER.call(method, path, {}, headers=headers).status == 401
    settings.JWT_ONLY = True
    assert STRANGER.call(method, path, {}, headers=service("somebody")).status == 401
    assert Api().call(method, path, {}).status == 401
    # Neighbours with valid tokens are let in with that setting, too.
    assert STRANGER.call(method, path, {}, headers=service()).status != 401


@pytest.mark.parametrize("name", ["gateway", "transcription-service", "ml-service"])
def test_the_services_that_may(name: str) -> None:
    assert STRANGER.get("/memory/stats", service(name)).status == 200
