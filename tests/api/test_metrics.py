"""GET /metrics, /health/live and /health/ready: who may read them, and that Prometheus can."""

import json
import re
from ipaddress import ip_network
from pathlib import Path

import pytest
import yaml
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families
from pytest_django import Settings

from inference.models import Generation
from inference.monitoring import worker_report
from inference.monitoring.engine_metrics import EngineReport
from inference.monitoring.worker_report import WorkerReport
from tests.api.calling import Api
from tests.api.people import access_token, bearer, make_user

# The view reads rows in a thread of its own.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("redis_client")]
ELSEWHERE = "203.0.113.7"
TOKEN = "a long token of the operator's"


def figures(text: str) -> dict[str, float]:
    """Return the samples by name and values of their labels, whose names are in alphabetical order."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {"|".join((sample.name, *sample.labels.values())): sample.value for sample in samples}


def read(**headers: str) -> dict[str, float]:
    response = Client().get("/metrics", headers=headers)
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/plain")
    return figures(response.content.decode())


def status(address: str = ELSEWHERE, headers: dict[str, str] | None = None) -> int:
    return Client().get("/metrics", headers=headers or {}, REMOTE_ADDR=address).status_code


def test_without_a_worker_the_queue_is_there() -> None:
    Generation.objects.create(owner="local", status="queued")
    Generation.objects.create(owner="local", status="complete")
    shown = read()
    assert shown["gemma_worker_up"] == 0
    assert shown["gemma_generations|interactive|queued"] == 1
    assert shown["gemma_generations|batch|running"] == 0
    assert "gemma_output_tokens_total" not in shown


def test_the_workers_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = EngineReport(n_steps=7, n_prefill_tokens=100, n_cached_tokens=50, n_guessed_tokens=9, n_right_tokens=4)
    report = WorkerReport(pid=1, model_name='odd "name"\n', n_tokens=12, engine=engine, vram_total_mb=2, device="gpu")
    monkeypatch.setattr("inference.monitoring.metrics.last_report", lambda: report)
    shown = read()
    assert shown["gemma_worker_up"] == 1
    assert shown['gemma_model_info|odd "name"\n'] == 1
    assert shown["gemma_output_tokens_total"] == 12
    assert (shown["gemma_prompt_tokens_total|computed"], shown["gemma_prompt_tokens_total|cache"]) == (100, 50)
    assert (shown["gemma_draft_tokens_total|accepted"], shown["gemma_draft_tokens_total|rejected"]) == (4, 5)
    assert shown["gemma_vram_total_bytes"] == 2 * 1024 * 1024
    assert "gemma_vram_used_bytes" not in shown


def test_requests_are_counted_by_route_and_never_by_path() -> None:
    before = read()
    Api().get("/api/conversations/6f1f2f44-3c5c-4d8e-9a53-0d3b3f9a6b10/")
    Api().get("/nothing/secret")
    after = read()
    missing = "gemma_http_requests_total|GET|conversation-detail|404"
    assert after[missing] == before.get(missing, 0) + 1
    unknown = "gemma_http_requests_total|GET|none|404"
    assert after[unknown] == before.get(unknown, 0) + 1
    assert not any("secret" in name or "6f1f2f44" in name for name in after)


def test_who_may_read_them(settings: Settings) -> None:
    assert status("127.0.0.1") == 200
    assert status("::1") == 200
    assert status() == 401
    assert status("127.0.0.1", {"X-Forwarded-For": "203.0.113.9"}) == 401
    settings.ANONYMOUS_NETWORKS = [*settings.ANONYMOUS_NETWORKS, ip_network("203.0.113.0/24")]
    assert status() == 403


@pytest.mark.parametrize(("is_staff", "expected"), [(True, 200), (False, 403)])
def test_users(is_staff: bool, expected: int) -> None:
    user = make_user()
    user.is_staff = is_staff
    user.save()
    assert status(headers=bearer(access_token(user))) == expected


def test_the_token_of_its_own(settings: Settings) -> None:
    assert status(headers=bearer(TOKEN)) == 401
    settings.METRICS_TOKEN = TOKEN
    assert status(headers=bearer(TOKEN)) == 200
    assert status(headers=bearer(TOKEN + "x")) == 401
    assert status(headers=bearer("")) == 401
    settings.JWT_ONLY = True
    assert status(headers=bearer(TOKEN)) == 200
    assert status("127.0.0.1") == 401


def test_an_empty_token_lets_nobody_in(settings: Settings) -> None:
    settings.METRICS_TOKEN = ""
    assert status(headers={"Authorization": "Bearer "}) == 401


def test_alive_and_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Api(ELSEWHERE).get("/health/live").body == {"status": "live", "missing": []}
    answer = Api(ELSEWHERE).get("/health/ready")
    assert (answer.status, answer.body) == (503, {"status": "not_ready", "missing": ["worker"]})
    worker_report.publish(WorkerReport(pid=1, model_name="fake-it", model_loaded=True))
    answer = Api(ELSEWHERE).get("/health/ready/")
    assert (answer.status, answer.body) == (200, {"status": "ready", "missing": []})


MONITORING = Path(__file__).resolve().parents[2] / "examples" / "monitoring"


def test_the_examples_use_figures_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    report = WorkerReport(pid=1, vram_total_mb=2, vram_used_mb=1, mean_run_secs=1.0)
    monkeypatch.setattr("inference.monitoring.metrics.last_report", lambda: report)
    Api().get("/health/live")
    names = {name.partition("|")[0] for name in read()}
    groups = yaml.safe_load((MONITORING / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    panels = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))["panels"]
    expressions = [rule["expr"] for group in groups for rule in group["rules"]]
    expressions += [target["expr"] for panel in panels for target in panel["targets"]]
    used = {name for expression in expressions for name in re.findall(r"gemma_\w+", expression)}
    assert len(expressions) > 10
    assert used - names == set()


def test_joined_figures_of_an_alert_have_the_same_labels() -> None:
    """`and` joins series whose labels are equal: a sum without `by` has none, and would be joined with nothing."""
    groups = yaml.safe_load((MONITORING / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    joined = [rule["expr"].split(" and ") for group in groups for rule in group["rules"] if " and " in rule["expr"]]
    assert joined
    for sides in joined:
        labels = [re.match(r"sum by \(([^)]+)\)", side) for side in sides]
        assert len({found and found.group(1) for found in labels}) == 1
        assert None not in labels
