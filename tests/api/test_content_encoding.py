"""Bodies that come compressed, or with a byte order mark before them."""

import bz2
import gzip
import json
import zlib

import pytest
from pytest_django import Settings

from chat.api.content_encoding import decompressed
from chat.errors import BodyTooLarge, InvalidEncoding, UnsupportedMediaType
from tests.api.calling import Api

pytestmark = pytest.mark.django_db(transaction=True)

NOTE = {"title": "t", "body": "The deadline is Friday."}
RAW = json.dumps(NOTE).encode()
BOM = "\ufeff".encode()


def added(raw: bytes, **headers: str) -> tuple[int, str]:
    """Status and error code of a note brought in with such bytes."""
    answer = Api().call("POST", "/memory/add", raw, headers=headers)
    return answer.status, answer.body.get("error", {}).get("code", "")


@pytest.mark.parametrize(
    ("raw", "encoding"),
    [
        (gzip.compress(RAW), "gzip"),
        (gzip.compress(RAW, compresslevel=0), " GZip "),
        (gzip.compress(RAW), "x-gzip"),
        (gzip.compress(RAW[:10]) + gzip.compress(RAW[10:]), "gzip"),
        (gzip.compress(BOM + RAW), "gzip"),
        (RAW, "identity"),
        (RAW, ""),
    ],
    ids=["gzip", "stored", "old name", "two members", "byte order mark", "identity", "none"],
)
def test_a_body_that_is_understood(raw: bytes, encoding: str) -> None:
    assert added(raw, **{"content-encoding": encoding}) == (200, "")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/memory/add", NOTE),
        ("/search/semantic", {"query": "deadline"}),
        ("/transcripts/count", {}),
        ("/api/conversations/", {"title": "t"}),
        ("/index/transcript", {"job_id": "j", "segments": [{"text": "Hello"}]}),
    ],
)
def test_every_kind_of_view_decompresses_and_skips_a_byte_order_mark(path: str, body: dict[str, object]) -> None:
    raw = json.dumps(body).encode()
    assert Api().call("POST", path, gzip.compress(raw), headers={"content-encoding": "gzip"}).status in (200, 201)
    assert Api().call("POST", path, BOM + raw).status in (200, 201)
    wrong = Api().call("POST", path, raw, headers={"content-encoding": "br"})
    assert wrong.outcome == (415, "unsupported_media_type")


@pytest.mark.parametrize("encoding", ["deflate", "br", "zstd", "compress", "gzip, gzip", "gzip;q=1", "x" * 5000])
def test_another_encoding_is_refused_with_a_sentence(encoding: str) -> None:
    answer = Api().call("POST", "/memory/add", RAW, headers={"content-encoding": encoding})
    assert answer.outcome == (415, "unsupported_media_type")
    message = answer.body["error"]["message"]
    assert message.startswith("the Content-Encoding must be gzip or identity, not '")
    assert len(message) < 200


@pytest.mark.parametrize(
    "raw",
    [
        RAW,
        zlib.compress(RAW),
        bz2.compress(RAW),
        gzip.compress(RAW, mtime=0)[:-9],
        gzip.compress(RAW, mtime=0) + b"x",
        b"\x1f\x8b",
    ],
)
def test_what_is_no_gzip_is_refused(raw: bytes) -> None:
    assert added(raw, **{"content-encoding": "gzip"}) == (400, "invalid_encoding")


@pytest.mark.parametrize("raw", [BOM + BOM + RAW, RAW + BOM, BOM, BOM[:2] + RAW])
def test_one_byte_order_mark_before_the_body_and_no_other(raw: bytes) -> None:
    status, code = added(raw)
    assert status == 400
    assert code in ("invalid_json", "invalid_encoding")


@pytest.mark.parametrize(
    "raw",
    [
        gzip.compress(b" " * 2_000_000 + RAW),
        gzip.compress(b" " * 60_000) * 20 + gzip.compress(RAW),
        gzip.compress(b" " * 1_048_577),
    ],
)
def test_a_small_body_that_becomes_a_large_one(raw: bytes, settings: Settings) -> None:
    settings.REQUEST_MAX_BYTES = 1_048_576
    assert len(raw) < 10_000
    assert added(raw, **{"content-encoding": "gzip"}) == (413, "body_too_large")


def test_a_bomb_is_given_up_at_the_limit() -> None:
    bomb = gzip.compress(b"\0" * 200_000_000)
    with pytest.raises(BodyTooLarge):
        decompressed(bomb, "gzip", 1000)
    assert decompressed(gzip.compress(b"x" * 1000), "gzip", 1000) == b"x" * 1000


def test_nothing_is_nothing_in_every_encoding() -> None:
    for encoding in ("gzip", "br", ""):
        assert decompressed(b"", encoding, 10) == b""
    with pytest.raises(UnsupportedMediaType):
        decompressed(b"x", "br", 10)
    with pytest.raises(InvalidEncoding):
        decompressed(b"x", "gzip", 10)
