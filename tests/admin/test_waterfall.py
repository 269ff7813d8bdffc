"""The time of an answer as bars: in order, on one axis, never beyond its ends."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chat.admin.waterfall import AXIS, Stage, waterfall
from inference.models import Generation

START = datetime(2026, 11, 17, 12, tzinfo=UTC)
CPU = {"device": "cpu", "tokens": 30}
GPU = {"device": "gpu", "tokens": 10}


def generation(total_secs: float | None, timings: dict[str, Any], devices: list[Any], queued_secs: float) -> Generation:
    row = Generation(timings=timings, devices=devices, created_at=START)
    row.queued_at = START + timedelta(seconds=queued_secs)
    row.finished_at = None if total_secs is None else START + timedelta(seconds=total_secs)
    return row


def stages(
    total_secs: float | None,
    search_ms: float | None = None,
    *,
    queued_secs: float = 0.0,
    **timings: Any,  # noqa: ANN401
) -> list[Stage]:
    devices = timings.pop("devices", [CPU])
    return waterfall(generation(total_secs, timings, devices, queued_secs), search_ms)


def ends(stage: Stage) -> tuple[float, float]:
    return float(stage.x), float(stage.x) + float(stage.width)


def test_stages_of_an_answer_on_the_cpu_follow_one_another() -> None:
    shown = stages(4, 100.0, queued_secs=0.2, queue=300, load=500, prefill=800, first_token=1000, decode=2000)
    assert [(stage.name, stage.text) for stage in shown] == [
        ("search", "100 ms"),
        ("queue", "300 ms"),
        ("load", "500 ms"),
        ("prefill", "800 ms"),
        ("first_token", "1.0 s"),
        ("decode", "2.0 s"),
    ]
    assert [ends(stage) for stage in shown] == [(0, 25), (50, 125), (125, 250), (250, 450), (250, 500), (500, 1000)]


def test_the_move_to_the_gpu_passes_beside_the_answer() -> None:
    shown = stages(
        4, queue=0, gpu_wait=400, load=800, restore=200, prefill=300, first_token=400, decode=3600, devices=[CPU, GPU]
    )
    places = {stage.name: ends(stage) for stage in shown if stage.name not in ("prefill", "decode")}
    assert places == {
        "gpu_wait": (0, 100),
        "load": (100, 300),
        "restore": (300, 350),
        "first_token": (0, 100),
        "cpu": (100, 775),
        "gpu": (775, 1000),
    }
    assert [stage.text for stage in shown[-2:]] == ["30 tokens", "10 tokens"]


@pytest.mark.parametrize("total_secs", [None, 0.0])
def test_without_an_end_or_a_figure_there_is_nothing(total_secs: float | None) -> None:
    assert stages(total_secs, queue=300 if total_secs is None else 0) == []


@pytest.mark.parametrize("devices", [[], [{}], [{"device": "gpu", "tokens": "many"}, CPU], [{"tokens": -3}, CPU]])
@pytest.mark.parametrize("times", [{"decode": 10**9}, {"queue": 0.001}, {"queue": None, "decode": 5.0}])
def test_odd_figures_stay_on_the_axis(devices: list[Any], times: dict[str, Any]) -> None:
    for stage in stages(0.001, 3.0, devices=devices, **times):
        start, end = ends(stage)
        assert 0 <= start < end <= AXIS + 0.1
