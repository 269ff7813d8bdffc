"""The metrics of the steps in the worker's report."""

from inference.engine.protocol.frames import Step
from inference.monitoring.engine_metrics import N_BUCKETS, EngineReport, StepMeter


def a_step(**changes: object) -> Step:
    values: dict[str, object] = {"emissions": [], "n_prefill": 60, "n_decode": 4, "step_ms": 100.0, **changes}
    return Step(**values)  # type: ignore[arg-type]


def test_before_the_first_step_everything_is_nothing() -> None:
    assert StepMeter().report() == EngineReport()


def test_steps_become_totals_means_and_rates() -> None:
    meter = StepMeter()
    meter.add(a_step(n_sequences=5, n_cached=240))
    meter.add(a_step(n_prefill=0, n_sequences=4, step_ms=60.0, n_waiting=2, cells_free=7, cells_used=8, cells_cached=9))
    report = meter.report()
    assert (report.n_steps, report.n_prefill_tokens, report.n_decode_tokens, report.n_cached_tokens) == (2, 60, 8, 240)
    assert (report.mean_step_ms, report.mean_step_sequences, report.mean_step_tokens) == (80.0, 4.5, 34.0)
    assert report.computed_tokens_per_second == 425.0
    assert report.cache_hit_ratio == 0.8
    assert (report.n_waiting, report.cells_free, report.cells_used, report.cells_cached) == (2, 7, 8, 9)


def test_means_forget_and_totals_do_not() -> None:
    meter = StepMeter()
    meter.add(a_step())
    for _ in range(N_BUCKETS):
        assert meter.report().mean_step_ms == 100.0
    late = meter.report()
    assert (late.mean_step_ms, late.computed_tokens_per_second, late.n_steps, late.n_prefill_tokens) == (
        0.0,
        0.0,
        1,
        60,
    )
