"""The measurements of one generation, its prefill reports, its location, and the totals of a session's moves."""

import pytest

from inference.dispatch.generation_state import Location
from inference.dispatch.generation_timing import PROGRESS_SECS, GenerationTiming, PrefillReport
from inference.dispatch.gpu_session import GpuSession, MoveTotals
from inference.engine.protocol.frames import Exported, ExportedSequence


def exported(*, path: str = "/shm/1.move", n_cached: int = 40) -> ExportedSequence:
    return ExportedSequence("s/1", path, 100, n_cached, 30.0, 40.0)


def test_times_of_all_runners_are_added_up() -> None:
    timing = GenerationTiming(added_at=10.0)
    timing.note_submit(12.0)
    timing.note_token(13.0)
    timing.note_export(exported())
    timing.note_submit(20.0)  # to the next runner
    assert timing.report(prefill_ms=1.0, decode_ms=2.0) == {
        "prefill": 31.0,
        "decode": 42.0,
        "load": 2000.0,
        "first_token": 1000.0,
    }


def test_one_that_was_never_submitted_reports_no_load() -> None:
    assert GenerationTiming(added_at=10.0).report(prefill_ms=0.0, decode_ms=0.0) == {"prefill": 0.0, "decode": 0.0}


def test_waits_for_the_gpu_count_from_the_arrival_of_the_generation() -> None:
    early, late = GenerationTiming(added_at=10.0), GenerationTiming(added_at=15.0)
    for timing in (early, late):
        timing.note_grant(12.0, 16.0)
        timing.note_gpu_ready(16.0, 18.0)
    assert (early.gpu_wait_ms, late.gpu_wait_ms) == (4000.0, 1000.0)
    assert (early.gpu_load_ms, late.gpu_load_ms) == (2000.0, 2000.0)
    assert early.report(prefill_ms=0.0, decode_ms=0.0)["gpu_wait"] == 4000.0


def test_a_restore_lasts_from_the_export_to_the_next_token() -> None:
    timing = GenerationTiming(added_at=0.0)
    timing.note_token(1.0)
    timing.exported_at = 5.0
    timing.note_token(5.5)
    timing.note_token(9.0)
    assert timing.restore_ms == 500.0
    assert timing.first_token_at == 1.0


@pytest.mark.parametrize(("path", "n_cached"), [("/shm/1.move", 40), ("", None)])
def test_the_first_runner_with_a_state_counts_the_cached_tokens(path: str, n_cached: int | None) -> None:
    timing = GenerationTiming()
    timing.note_export(exported(path=path))
    assert timing.n_cached == n_cached
    timing.note_export(exported(n_cached=99))
    assert timing.n_cached == (99 if n_cached is None else n_cached)


def test_progress_is_reported_at_intervals_at_the_end_and_after_a_deferral() -> None:
    report = PrefillReport()
    assert report.note(10, 100, now=1.0) == 0.1
    assert report.note(20, 100, now=1.0 + PROGRESS_SECS / 2) is None
    assert report.n_computed == 20, "it is known although it was not reported"
    assert report.note(30, 100, now=1.0 + PROGRESS_SECS) == 0.3
    assert report.note(100, 100, now=1.0 + PROGRESS_SECS) == 1.0
    report.note_deferred()
    assert report.note(100, 300, now=1.0 + PROGRESS_SECS) == 0.333
    assert report.note(0, 0, now=9.0) == 0.0


def test_a_runner_that_was_entered_has_taken_the_state_and_one_that_was_left_has_none() -> None:
    location = Location(state_path="/shm/1.move")
    location.enter("gpu", 7)
    assert location == Location(device="gpu", n_tokens_at_submit=7)
    location.is_exporting = True
    location.leave()
    assert (location.device, location.is_exporting) == (None, False)


def test_moves_there_and_back_are_added_up() -> None:
    moves = MoveTotals()
    moves.add_sequences(Exported([exported(), exported()], 2.0))
    moves.add_copies(50, 1.0)
    moves.add_import(3, 4.0)
    assert moves == MoveTotals(n_sequences=2, n_snapshots=3, n_bytes=250, ms=7.0)


def test_a_session_ends_for_its_first_reason_and_its_record_has_the_times() -> None:
    session = GpuSession(10.0, ticket=1)
    assert session.held_secs(11.0) == 0.0, "it is not granted yet"
    session.granted_at, session.ready_at = 12.0, 15.0
    session.leave("recalled", 20.0)
    session.leave("killed by SIGKILL", 21.0)
    record = session.record(22.0, is_simulated=True)
    assert (record.ended_because, record.device_to, record.is_simulated) == ("recalled", "gpu", True)
    assert (record.waited_ms, record.loaded_ms, record.yield_ms, record.held_secs) == (2000.0, 3000.0, 2000.0, 10.0)


def test_a_session_counts_the_time_that_others_wait_from_its_grant_on() -> None:
    session = GpuSession(10.0, ticket=1)
    session.note_tenants(11.0, are_waiting=True)
    session.granted_at = 12.0
    for now, are_waiting in ((13.0, True), (15.0, False), (16.5, True)):
        session.note_tenants(now, are_waiting=are_waiting)
    assert session.record(17.0, is_simulated=True).taken_secs == 1.0 + 1.5
