"""The pages about the running service: answers with their texts so far, model and engine."""

import re
from pathlib import Path

import pytest
import redis
from django.test import Client
from pytest_django import Settings

from chat.admin.service.engine import quantisation
from inference.engine.backends.gguf_header import ModelHeader
from inference.models import Generation
from inference.monitoring import worker_report
from inference.monitoring.engine_metrics import EngineReport
from inference.monitoring.worker_report import WorkerReport
from inference.runtime.redis_client import shared_client
from inference.token_stream import redis_log
from inference.token_stream.entries import TokenEntry
from tests.admin.builders import add_answer, conversation, operator, page_of, unfinished

pytestmark = pytest.mark.django_db(transaction=True)

RUNNING = "/admin/inference/generation/running/"
ENGINE = "/admin/inference/generation/engine/"


def emit(generation_id: object, *texts: str, thought: str = "", device: str = "cpu") -> None:
    """Write the tokens that a worker has emitted so far."""
    entries = [TokenEntry(index=n, token=n, text=text, device=device) for n, text in enumerate(texts, start=1)]
    if thought:
        entries.append(TokenEntry(index=len(entries) + 1, token=1, thought=thought, device=device))
    redis_log.append(shared_client(), [redis_log.Append(generation_id, 1, entries)])  # type: ignore[arg-type]


def text_of(client: Client, address: str) -> str:
    response = client.get(address)
    assert response.status_code == 200, response
    return " ".join(re.sub(r"<[^>]*>", " ", response.content.decode()).split())


@pytest.mark.usefixtures("redis_client")
class TestRunningAnswers:
    def test_the_text_so_far(self) -> None:
        answer = unfinished(conversation(title="A long tale"), "running")
        emit(answer.generation_id, "Once ", "upon <b>", " a time", device="gpu")
        text = text_of(operator(), RUNNING)
        assert "Running A long tale local (no login)" in text
        assert "3 tokens GPU" in text
        assert "Once upon &lt;b&gt; a time" in text

    def test_the_end_of_a_long_text(self) -> None:
        answer = unfinished(conversation(), "running")
        emit(answer.generation_id, "beginning " + "x" * 5000, " the end")
        text = text_of(operator(), RUNNING)
        assert "beginning" not in text
        assert "x the end" in text

    def test_a_thought_is_counted(self) -> None:
        answer = unfinished(conversation(), "running")
        emit(answer.generation_id, thought="Let me see.")
        assert "thinks, 11 characters so far" in text_of(operator(), RUNNING)

    def test_running_ones_first_and_no_ended_ones(self) -> None:
        chat = conversation()
        add_answer(chat, "an ended one")
        waiting, running = unfinished(chat), unfinished(chat, "running")
        text = text_of(operator(), RUNNING)
        assert text.index(str(running.generation_id)[:8]) < text.index(str(waiting.generation_id)[:8])
        assert "ended one" not in text

    def test_what_is_not_to_be_stored_is_not_shown(self) -> None:
        generation = Generation.objects.create(owner="local", status="running", ephemeral=True)
        emit(generation.pk, "a secret")
        text = text_of(operator(), RUNNING)
        assert "secret" not in text
        assert "The text is not stored and not shown." in text

    def test_without_redis(self, monkeypatch: pytest.MonkeyPatch) -> None:
        unfinished(conversation(), "running")

        def refuse(*_: object, **__: object) -> None:
            raise redis.ConnectionError("away")

        monkeypatch.setattr(shared_client(), "execute_command", refuse)
        assert "cannot be read while Redis does not answer" in text_of(operator(), RUNNING)

    def test_nothing_runs(self) -> None:
        assert "No answer waits or runs." in text_of(operator(), RUNNING)

    def test_one_is_cancelled(self) -> None:
        waiting, another = unfinished(chat := conversation()), unfinished(chat)
        client = operator()
        response = client.post(f"/admin/inference/generation/{waiting.generation_id}/cancel/", follow=True)
        assert [str(message) for message in response.context["messages"]] == ["1 cancelled, 0 had ended already"]
        assert Generation.objects.get(message=waiting).status == "interrupted"
        assert Generation.objects.get(message=another).status == "queued"

    def test_a_clerk_may_look_and_not_cancel(self) -> None:
        waiting = unfinished(conversation())
        clerk = operator("view_generation")
        assert "Cancel" not in text_of(clerk, RUNNING)
        assert clerk.post(f"/admin/inference/generation/{waiting.generation_id}/cancel/").status_code == 403
        assert clerk.get(f"/admin/inference/generation/{waiting.generation_id}/cancel/").status_code == 405

    @pytest.mark.parametrize("address", [RUNNING, ENGINE])
    def test_others_see_nothing(self, address: str) -> None:
        assert operator("view_conversation").get(address).status_code == 403
        assert "login" in Client().get(address).headers["Location"]

    def test_the_page_of_a_conversation_has_the_text_too(self) -> None:
        answer = unfinished(chat := conversation(), "running")
        emit(answer.generation_id, "So far ", "so good")
        client = operator()
        page = client.get(page_of(chat)).content.decode()
        assert "So far so good" in page
        assert 'data-live-secs="2"' in page
        add_answer(other := conversation())
        assert "data-live-secs" not in client.get(page_of(other)).content.decode()


@pytest.mark.usefixtures("redis_client")
class TestEngine:
    def test_without_a_worker(self) -> None:
        assert "No worker has reported" in text_of(operator(), ENGINE)

    def test_what_the_worker_reports(self) -> None:
        engine = EngineReport(
            n_steps=1234, mean_step_ms=21.5, n_guessed_tokens=50, n_right_tokens=20, cells_free=10, cells_used=20
        )
        report = WorkerReport(
            pid=1,
            model_name="gemma-3",
            card="NVIDIA X",
            vram_used_mb=2048,
            vram_total_mb=8192,
            engine=engine,
            n_tokens=77,
        )
        worker_report.publish(report)
        text = text_of(operator(), ENGINE)
        for part in (
            "in use gemma-3",
            "graphics card 2,048 of 8,192 MB in use",
            "graphics card NVIDIA X",
            "1,234 since the worker started",
            "time of a step 21.5 ms",
            "drafts accepted 40% of 50 tokens",
            "20 in use, 0 kept, 10 free of 30",
            "77 since the worker started",
        ):
            assert part in text

    def test_a_file_that_cannot_be_used(self, settings: Settings, tmp_path: Path) -> None:
        settings.GEMMA_BACKEND, settings.GEMMA_MODEL_FILE = "llama", tmp_path / "no.gguf"
        assert "does not exist" in text_of(operator(), ENGINE)

    @pytest.mark.parametrize(
        ("numbers", "name"),
        [
            ({"general.file_type": 15}, "Q4_K_M"),
            ({"general.file_type": 7}, "Q8_0"),
            ({"general.file_type": 0}, "F32"),
            ({"general.file_type": 9999}, "type 9999"),
            ({}, "not stated by the file"),
        ],
    )
    def test_quantisations(self, numbers: dict[str, int], name: str) -> None:
        assert quantisation(ModelHeader(3, 1, 1, 0, 0, numbers=numbers)) == name
