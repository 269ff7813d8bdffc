"""The batch's loop, unit by unit, with the real services and no worker: the test decides how each prompt ends."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from chat.access.callers import Caller
from chat.batch import service_monitor
from chat.batch.errors import BatchError, ServiceGone
from chat.batch.input_files import PromptFormat
from chat.batch.inputs import BatchInput, BatchOptions, LineFailure
from chat.batch.outputs import BatchOutput
from chat.batch.runner import Batch
from chat.batch.submission import cancel_run
from chat.errors import Unavailable
from chat.services import turns
from inference.models import Generation, Status
from inference.monitoring import worker_report

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.databases]

OPTIONS = BatchOptions(fields={"store": False}, system="Be terse.", owner="local")
REPORT = worker_report.WorkerReport(pid=1)


class Notes:
    """Records the events of a batch."""

    def __init__(self) -> None:
        self.n_answered = 0
        self.failures: list[LineFailure] = []
        self.notices: list[str] = []

    def answered(self, n_tokens: int) -> None:
        self.n_answered += 1

    def failed(self, failure: LineFailure) -> None:
        self.failures.append(failure)

    def notice(self, text: str) -> None:
        self.notices.append(text)


class Bench:
    """Batches over one input and one output, as several starts of the command would make them."""

    def __init__(self, folder: Path) -> None:
        (folder / "in.txt").write_text("".join(f"prompt {number}\n" for number in range(1, 6)))
        self.source = BatchInput(folder / "in.txt", PromptFormat.AUTO, OPTIONS, 1000)
        self.path = folder / "out.jsonl"
        self.notes = Notes()

    def batch(self, output: BatchOutput, concurrency: int = 2, patience_secs: float = 60.0) -> Batch:
        output.load()
        made = Batch(
            caller=Caller.local(),
            source=self.source,
            output=output,
            run=output.begin(OPTIONS),
            concurrency=concurrency,
            patience_secs=patience_secs,
        )
        made.listener = self.notes
        return made

    def failures(self) -> list[tuple[int, str]]:
        return [(failure.line, failure.code) for failure in self.notes.failures]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture(autouse=True)
def _worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_report, "last_report", lambda: REPORT)


@pytest.fixture
def output(bench: Bench) -> Iterator[BatchOutput]:
    with BatchOutput(bench.path) as output:
        yield output


def end(n: int = 1, status: str = Status.COMPLETE, **columns: str) -> None:
    """The oldest ``n`` that wait end."""
    waiting = Generation.objects.filter(status=Status.QUEUED).order_by("created_at")[:n]
    Generation.objects.filter(pk__in=list(waiting.values_list("pk", flat=True))).update(status=status, **columns)


def test_it_keeps_as_many_under_way_as_asked_for(bench: Bench, output: BatchOutput) -> None:
    batch = bench.batch(output, concurrency=2)
    assert batch.do_one_unit()
    assert Generation.objects.count() == 2
    assert batch.do_one_unit()
    assert Generation.objects.count() == 2
    end(1)
    batch.do_one_unit()
    batch.do_one_unit()
    assert Generation.objects.count() == 3
    assert bench.notes.n_answered == 1


def test_nothing_is_left_when_all_have_ended(bench: Bench, output: BatchOutput) -> None:
    batch = bench.batch(output, concurrency=9)
    assert batch.do_one_unit()
    end(9)
    assert batch.do_one_unit() is False
    assert output.done.count == 5


def test_a_person_who_asks_is_not_counted_against_it(bench: Bench, output: BatchOutput) -> None:
    bench.batch(output).do_one_unit()
    assert set(Generation.objects.values_list("priority", "ephemeral")) == {(2, True)}


@pytest.mark.parametrize("code", ["queue_full", "caller_limit", "store_unavailable"])
def test_a_passing_refusal_makes_it_wait(
    bench: Bench, output: BatchOutput, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    batch = bench.batch(output, concurrency=3)
    batch.do_one_unit()
    start_turn = turns.start_turn

    def refuse(**arguments: object) -> None:
        raise Unavailable("not now", code=code, retry_after_secs=100)

    monkeypatch.setattr(turns, "start_turn", refuse)
    end(1)
    assert batch.do_one_unit()
    assert batch.do_one_unit()
    assert len(batch.pending) == 2
    monkeypatch.setattr(turns, "start_turn", start_turn)
    end(1)
    batch.do_one_unit()  # something ended: there may be room before the time that was named
    batch.do_one_unit()
    assert [pending.prompt.line for pending in batch.pending.values()] == [3, 4, 5]
    assert bench.failures() == []


def test_a_service_without_a_model_ends_the_batch(
    bench: Bench, output: BatchOutput, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**arguments: object) -> None:
        raise Unavailable("the model file is truncated", code="model_unavailable")

    monkeypatch.setattr(turns, "start_turn", refuse)
    with pytest.raises(BatchError, match="truncated"):
        bench.batch(output).do_one_unit()


def test_answers_that_end_badly_are_failures_of_their_line(bench: Bench, output: BatchOutput) -> None:
    batch = bench.batch(output, concurrency=9)
    batch.do_one_unit()
    end(1, Status.FAILED, error_code="runner_crashed", error_message="thrice")
    end(1, Status.INTERRUPTED, finish_reason="cancelled")
    end(1, Status.INTERRUPTED, error_code="timeout")
    end(2)
    assert batch.do_one_unit() is False
    assert sorted(bench.failures()) == [(1, "runner_crashed"), (2, "cancelled"), (3, "timeout")]
    assert output.done.count == 2


def test_work_of_a_killed_run_is_found_again(bench: Bench, output: BatchOutput) -> None:
    bench.batch(output, concurrency=3).do_one_unit()
    end(1)
    second = bench.batch(output, concurrency=5)
    second.do_one_unit()
    assert Generation.objects.count() == 5
    assert bench.notes.n_answered == 1
    end(9)
    assert second.do_one_unit() is False
    assert output.done.count == 5


def test_work_that_was_cut_with_its_run_is_asked_anew(bench: Bench, output: BatchOutput) -> None:
    bench.batch(output, concurrency=2).do_one_unit()
    end(1, Status.INTERRUPTED)
    second = bench.batch(output, concurrency=2)
    second.do_one_unit()
    assert Generation.objects.count() == 3, "the ended one has a successor at once"
    end(1, Status.INTERRUPTED)
    second.do_one_unit()
    assert Generation.objects.count() == 4, "the one that was still running then, too"
    assert bench.failures() == []
    end(1, Status.INTERRUPTED)
    second.do_one_unit()
    assert len(bench.failures()) == 1, "the second time it is the prompt's own"


def test_a_failed_line_is_asked_once_per_start(bench: Bench, output: BatchOutput) -> None:
    for start in range(1, 4):
        batch = bench.batch(output, concurrency=5)
        batch.do_one_unit()
        end(1, Status.FAILED, error_code="odd")
        end(9)
        batch.do_one_unit()
        assert bench.failures() == [(1, "odd")] * start
        assert Generation.objects.count() == 4 + start


def test_a_row_that_vanished_is_asked_again_once(bench: Bench, output: BatchOutput) -> None:
    batch = bench.batch(output, concurrency=1)
    batch.do_one_unit()
    Generation.objects.all().delete()
    batch.do_one_unit()
    assert Generation.objects.count() == 1
    Generation.objects.all().delete()
    batch.do_one_unit()
    assert bench.failures() == [(1, "deleted")]


def test_it_waits_for_a_worker_and_then_gives_up(
    bench: Bench, output: BatchOutput, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_monitor, "HEALTH_SECS", 0.0)
    batch = bench.batch(output, patience_secs=60.0)
    batch.do_one_unit()
    monkeypatch.setattr(worker_report, "last_report", lambda: None)
    batch.do_one_unit()
    assert "no worker reports; waiting up to 60 s" in bench.notes.notices[0]
    batch.monitor.patience_secs = 0.0
    with pytest.raises(ServiceGone, match="Start again to continue"):
        batch.do_one_unit()
    assert Generation.objects.filter(status=Status.QUEUED).count() == 2, "what was asked stays for the next start"


def test_a_worker_that_comes_back_is_heard(bench: Bench, output: BatchOutput, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_monitor, "HEALTH_SECS", 0.0)
    batch = bench.batch(output, patience_secs=60.0)
    monkeypatch.setattr(worker_report, "last_report", lambda: None)
    batch.do_one_unit()
    silent_since = batch.monitor.reported_at
    monkeypatch.setattr(worker_report, "last_report", lambda: REPORT)
    batch.do_one_unit()
    assert batch.monitor.reported_at > silent_since


def test_stopping_cancels_what_waits_and_keeps_what_ended(bench: Bench, output: BatchOutput) -> None:
    batch = bench.batch(output, concurrency=3)
    batch.do_one_unit()
    end(1)
    batch.cancel()
    assert output.done.count == 1
    assert set(Generation.objects.values_list("status", flat=True)) == {Status.COMPLETE, Status.INTERRUPTED}
    assert batch.pending == {}


def test_giving_up_a_run_touches_no_other(bench: Bench, output: BatchOutput) -> None:
    batch = bench.batch(output, concurrency=3)
    batch.do_one_unit()
    end(1)
    turns.start_turn(caller=Caller.local(), request=next(iter(batch.pending.values())).prompt.request)
    assert cancel_run(batch.run_name, Caller("service:other")) == 0
    assert cancel_run(batch.run_name, Caller.local()) == 2
    assert Generation.objects.filter(status=Status.QUEUED).count() == 1


def test_a_hundred_thousand_lines_take_no_room(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("".join(f"prompt number {number} of many\n" for number in range(100_000)))
    source = BatchInput(tmp_path / "in.txt", PromptFormat.AUTO, OPTIONS, 1000)
    with BatchOutput(tmp_path / "out.jsonl") as output:
        tracemalloc.start()
        assert output.check_input(source) == 100_000
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak_bytes < 500_000
