"""A hit or document as a source: fields read, fields dropped, and the way to the client and back."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.rag.sources import DOCUMENT, MEMORY, SEGMENT, ContextItem, Source, source_from_context, source_from_hit

json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)
fields = (
    "text",
    "type",
    "doc_type",
    "speaker",
    "score",
    "id",
    "doc_id",
    "title",
    "created_at",
    "timestamp",
    "start_time",
)
hits = st.dictionaries(
    st.sampled_from([*fields, "metadata"]),
    st.one_of(json_values, st.dictionaries(st.sampled_from(fields), json_values, max_size=4)),
)


@given(hits)
def test_any_hit_is_a_clean_source_or_none(hit: dict[str, Any]) -> None:
    source = source_from_hit(hit)
    if source is None:
        return
    assert source.text
    assert source.kind in {DOCUMENT, MEMORY, SEGMENT}
    assert "\0" not in source.text + source.title + source.speaker
    wire = json.loads(json.dumps(source.as_wire(), allow_nan=False))
    assert Source.from_wire(wire) == source
    source.text.encode()


@pytest.mark.parametrize("name", ["score", "start_time", "timestamp"])
def test_a_number_that_no_float_can_hold_is_none(name: str) -> None:
    """Valid in JSON, and a response of the memory service must never cost the answer."""
    for number in (10**400, -(10**400)):
        source = source_from_hit({"text": "x", name: number, "metadata": {name: number}})
        assert source
        assert (source.score, source.start_time, source.time) == (None, None, None)


@pytest.mark.parametrize("time", ["2026-03-01", "2026-03-01T10:00:00+02:00", "2026-03-01T10:00:00Z"])
def test_times(time: str) -> None:
    source = source_from_hit({"text": "x", "metadata": {"created_at": time}})
    assert source
    assert source.moment
    assert source.moment.year == 2026


def test_unix_seconds_are_a_time_and_seconds_into_a_recording_are_not() -> None:
    late, early = (source_from_hit({"text": "x", "metadata": {"timestamp": stamp}}) for stamp in (1_767_225_600, 12.5))
    assert late
    assert early
    assert late.time == "2026-01-01T00:00:00+00:00"
    assert early.time is None


@pytest.mark.parametrize(
    ("hit", "kind"),
    [
        ({"type": "memory"}, MEMORY),
        ({"doc_type": "transcript_segment"}, SEGMENT),
        ({"type": "something new"}, MEMORY),
        ({"type": ["memory"]}, MEMORY),
        ({"metadata": {"segment_id": 4}}, SEGMENT),
    ],
)
def test_kinds(hit: dict[str, Any], kind: str) -> None:
    source = source_from_hit({"text": "x"} | hit)
    assert source
    assert source.kind == kind


def test_a_memory_with_a_body_only() -> None:
    source = source_from_hit({"metadata": {"body": "remember the milk", "memory_id": 5}})
    assert source
    assert (source.text, source.doc_id) == ("remember the milk", "5")


def test_a_document_of_the_request() -> None:
    source = source_from_context(
        ContextItem(" text ", {"title": "Minutes", "speaker": "Ann", "time": "2026-03-01", "id": 9, "other": [1]})
    )
    assert source.as_wire() == {
        "label": "",
        "kind": "document",
        "title": "Minutes",
        "speaker": "Ann",
        "time": "2026-03-01T00:00:00",
        "emotion": "",
        "score": None,
        "text": "text",
        "doc_id": "9",
    }
