"""Worker processes killed between an answer and its summary, and in the middle of the summary: it is made once."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis
from django.db import connection

from chat.models import Conversation, Summary, SummaryState
from chat.services.turns import Turn
from chat.summarization.rolling import AFTER_ANSWER_TASK
from inference.config.tokenizer import Tokenizer
from inference.models import Generation, Priority, Status
from tests.chat.conftest import SYSTEM
from tests.chat.conversing import chat, finish, generation_of, more
from tests.chat.vocabularies import fake_tokenizer
from tests.inference.worker_process import WorkerProcess
from tests.inference.working import eventually

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "sqlite", reason="the processes share a file"),
    # Of all waits; a test that succeeds takes a few seconds.
    pytest.mark.timeout(600),
]

CONTEXT = 3000
# Worker processes have to start before they do anything: a few seconds each, more on a machine with other work.
PATIENCE_SECS = 180.0


class Deaf(WorkerProcess):
    """A worker that computes answers and receives no follow-up tasks."""

    arguments = [
        "-c",
        "import sys\n"
        "from django.core.management import execute_from_command_line\n"
        "from gemma_project.management.commands import worker\n"
        "worker.QUEUES = ('gpu',)\n"
        "execute_from_command_line(['manage.py', 'worker'])\n",
    ]


Start = Callable[[type[WorkerProcess]], WorkerProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    workers: list[WorkerProcess] = []

    def begin(kind: type[WorkerProcess]) -> WorkerProcess:
        workers.append(kind(tmp_path, GEMMA_CONTEXT_SIZE=str(CONTEXT), GEMMA_SYSTEM_PROMPT=SYSTEM))
        return workers[-1]

    yield begin
    for worker in workers:
        worker.clean_up()


@pytest.fixture(autouse=True)
def _service(redis_client: "redis.Redis[str]", use_tokenizer: Callable[[Tokenizer], None]) -> None:
    use_tokenizer(fake_tokenizer(context_size=CONTEXT))


def long_talk(*, slow: bool) -> Turn:
    """Up to the question whose answer, not computed yet, makes a summary due."""
    # Its text slows down the model that reads it, which is the summarizer.
    turn = chat("u:[[delay: 40]] and so on" if slow else "u:and so on", max_tokens=20)
    while True:
        finish(turn, "v" * 150)
        turn = more(turn, "u" * 150, max_tokens=20)
        if generation_of(turn).follow_up_task:
            return turn


def wait_for_answer(turn: Turn) -> None:
    assert eventually(lambda: generation_of(turn).status == Status.COMPLETE, secs=PATIENCE_SECS)


def state_of_summary() -> str | None:
    return Summary.objects.values_list("state", flat=True).first()


def assert_made_once() -> None:
    assert eventually(lambda: state_of_summary() == SummaryState.MADE, secs=PATIENCE_SECS)
    assert eventually(lambda: not Generation.objects.exclude(follow_up_task="").exists()), "the outbox is empty"
    summary = Summary.objects.get()
    assert (summary.version, summary.error) == (1, "")
    assert summary.text == Conversation.objects.get(pk=summary.conversation_id).summary != ""
    summaries = Generation.objects.filter(priority=Priority.BATCH, ephemeral=False)
    assert [row.pk for row in summaries] == [summary.generation_id]


@pytest.mark.parametrize("is_message_lost", [False, True])
def test_a_worker_killed_after_an_answer_leaves_its_summary_to_the_next(
    start: Start, redis_client: "redis.Redis[str]", *, is_message_lost: bool
) -> None:
    turn = long_talk(slow=False)
    first = start(Deaf)
    wait_for_answer(turn)
    if not is_message_lost:
        # The reaper sends the message again when nobody takes it.
        assert eventually(lambda: redis_client.llen("chat") >= 1, secs=PATIENCE_SECS)
    first.signal(signal.SIGKILL)
    first.wait(10)
    assert generation_of(turn).follow_up_task == AFTER_ANSWER_TASK
    assert state_of_summary() is None
    if is_message_lost:  # perhaps it was not even sent
        redis_client.delete("chat")
    second, third = start(WorkerProcess), start(WorkerProcess)
    assert_made_once()
    assert second.is_alive
    assert third.is_alive


def test_a_worker_killed_in_the_middle_of_a_summary_leaves_it_to_the_next(start: Start) -> None:
    turn = long_talk(slow=True)
    first = start(WorkerProcess)
    folds = Generation.objects.filter(priority=Priority.BATCH, status=Status.RUNNING, ephemeral=False)
    assert eventually(lambda: folds.filter(worker__contains=first.name_part).exists(), secs=PATIENCE_SECS)
    first.signal(signal.SIGKILL)
    first.wait(10)
    assert state_of_summary() == SummaryState.MAKING
    start(WorkerProcess)
    assert_made_once()
    assert generation_of(turn).attempt == 1


def test_runners_killed_in_the_middle_of_a_summary_cost_no_summary(start: Start) -> None:
    turn = long_talk(slow=True)
    worker = start(WorkerProcess)
    pieces = Generation.objects.filter(priority=Priority.BATCH, status=Status.RUNNING, ephemeral=False)
    for _ in range(2):
        assert eventually(lambda: pieces.exists() and bool(runners_of(worker)), secs=PATIENCE_SECS)
        for runner in runners_of(worker):
            runner.kill()
            runner.wait(PATIENCE_SECS)
        assert state_of_summary() == SummaryState.MAKING
    assert_made_once()
    assert worker.is_alive
    assert generation_of(turn).attempt == 1


def runners_of(worker: WorkerProcess) -> list[psutil.Process]:
    return [each for each in worker.children() if each.cmdline()[:1] and each.cmdline()[0].startswith("gemma-runner")]
