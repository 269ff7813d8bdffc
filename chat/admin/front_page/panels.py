"""The charts of the front page, and the figures above them."""

from collections.abc import Sequence
from dataclasses import dataclass

from chat.admin.common.formatting import duration_text
from chat.admin.front_page.charts import Chart, Form, Values, chart
from chat.local_time import local
from chat.services.rollups.collecting import CHAT, GENERATIONS, GPU, RETRIEVALS
from chat.services.rollups.figures import largest, percentile
from chat.services.rollups.reading import Period, PeriodStep, PeriodSums
from inference.gpu.protocol.channels import OUR_SERVICE

MAX_TENANTS = 6
LABELS = {
    Period.DAY: "{:%H:%M}",
    Period.WEEK: "{:%a %d %b, %H:%M}",
    Period.MONTH: "{:%a %d %b}",
    Period.YEAR: "week from {:%d %b %Y}",
}


@dataclass(frozen=True)
class Tile:
    """A figure of the whole period."""

    label: str
    value: str
    note: str = ""


def tiles(sums: PeriodSums) -> list[Tile]:
    generations, chats, gpu = (sums.totals[kind] for kind in (GENERATIONS, CHAT, GPU))
    first_token = generations.get("first_token_ms", {})
    speed = percentile(generations.get("tokens_per_s", {}), 0.5)
    share = _ratio(generations.get("tokens_cached"), generations.get("tokens_in"))
    on_gpu = _ratio(generations.get("tokens_by_device", {}).get("gpu"), generations.get("tokens_out"))
    outcomes = generations.get("outcomes", {})
    return [
        Tile("Conversations begun", f"{chats.get('conversations', 0):,}", f"{chats.get('questions', 0):,} questions"),
        Tile("Generations", f"{generations.get('n', 0):,}", f"{outcomes.get('failed', 0):,} failed"),
        Tile("Tokens written", f"{generations.get('tokens_out', 0):,}", f"{generations.get('tokens_in', 0):,} read"),
        Tile("First token", duration_text(percentile(first_token, 0.5)), f"95 %: {_late(first_token)}"),
        Tile("Speed", "-" if speed is None else f"{speed:.1f} tokens/s", f"{_percent(on_gpu)} on the GPU"),
        Tile("Waiting", _late(generations.get("queue_ms", {})), "95 % waited less"),
        Tile("Prompts from the cache", _percent(share), "of the tokens read"),
        Tile("Hand-overs", f"{gpu.get('sessions', 0):,}", f"back in {_late(gpu.get('yield_ms', {}))} (95 %)"),
    ]


def charts(sums: PeriodSums) -> list[Chart]:
    labels = [LABELS[sums.period].format(local(step.starts_at)) for step in sums.steps]
    return [*_use_charts(sums.steps, labels), *_time_charts(sums, labels), *_gpu_charts(sums, labels)]


def _use_charts(steps: Sequence[PeriodStep], labels: Sequence[str]) -> list[Chart]:
    retrieved = ("n", "retrieved", "shown", "cited")
    outcomes = {"complete": "complete", "cut": "longest length", "stopped": "stopped", "timed_out": "timed out"}
    outcomes["failed"] = "failed"
    by_outcome = [(label, _numbers(steps, GENERATIONS, "outcomes", name)) for name, label in outcomes.items()]
    names = {"n": "questions searched for", "retrieved": "found", "shown": "shown", "cited": "cited"}
    return [
        chart(
            "Conversations and questions",
            Form.LINES,
            labels,
            [(name, _numbers(steps, CHAT, name)) for name in ("conversations", "questions")],
        ),
        chart("Generations by outcome", Form.BARS, labels, by_outcome),
        chart(
            "Tokens",
            Form.BARS,
            labels,
            [
                ("read from the cache", _numbers(steps, GENERATIONS, "tokens_cached")),
                ("read", [_uncached(step) for step in steps]),
                ("written", _numbers(steps, GENERATIONS, "tokens_out")),
            ],
        ),
        chart("Cache hits", Form.LINES, labels, [("of the tokens read", _shares(steps))], text="{:.0f} %".format),
        chart("Memories", Form.LINES, labels, [(names[name], _numbers(steps, RETRIEVALS, name)) for name in retrieved]),
    ]


def _time_charts(sums: PeriodSums, labels: Sequence[str]) -> list[Chart]:
    def times(title: str, kind: str, name: str) -> Chart:
        return chart(title, Form.LINES, labels, _percentiles(sums.steps, kind, name), text=duration_text)

    lengths = [step.figures[GENERATIONS].get("queued_ms", 0.0) / sums.step_ms for step in sums.steps]
    return [
        times("Time to the first token", GENERATIONS, "first_token_ms"),
        chart(
            "Speed in tokens/s",
            Form.LINES,
            labels,
            _percentiles(sums.steps, GENERATIONS, "tokens_per_s"),
            text="{:.0f}".format,
        ),
        times("Waiting in the queue", GENERATIONS, "queue_ms"),
        chart(
            "Length of the queue",
            Form.BARS,
            labels,
            [("on average", lengths)],
            text="{:.3g}".format,
            least_top=0.01,
            note="Waiting time of all generations that ended, divided by the length of the step.",
        ),
        times("Search for memories", RETRIEVALS, "latency_ms"),
    ]


def _gpu_charts(sums: PeriodSums, labels: Sequence[str]) -> list[Chart]:
    steps = sums.steps
    tenants = list(largest(sums.totals[GPU].get("held_secs", {}), MAX_TENANTS))
    holders: list[tuple[str, Values]] = [
        ("this service" if name == OUR_SERVICE else name, _minutes(_numbers(steps, GPU, "held_secs", name)))
        for name in tenants
    ]
    withheld = _minutes(_numbers(steps, GPU, "withheld_secs"))
    return [
        chart(
            "Who held the GPU",
            Form.BARS,
            labels,
            holders or [("this service", [None] * len(labels))],
            text="{:,.0f} min".format,
            note="Leases of each tenant. A resident program that takes no lease has the rest of the time.",
        ),
        chart(
            "Hand-overs",
            Form.BARS,
            labels,
            [("to the GPU", _numbers(steps, GPU, "sessions"))],
        ),
        chart(
            "Cost of the hand-overs",
            Form.LINES,
            labels,
            [
                ("waited for the lease", _medians(steps, "waited_ms")),
                ("model loaded", _medians(steps, "loaded_ms")),
                ("given back", _medians(steps, "yield_ms")),
            ],
            text=duration_text,
            note="Median of each step.",
        ),
        chart("Withheld from residents", Form.BARS, labels, [("paused", withheld)], text="{:,.0f} min".format),
    ]


def _numbers(steps: Sequence[PeriodStep], kind: str, name: str, part: str | None = None) -> list[float | None]:
    values = (step.figures[kind].get(name) for step in steps)
    if part is not None:
        return [(value or {}).get(part, 0) for value in values]
    return [value or 0 for value in values]


def _percentiles(steps: Sequence[PeriodStep], kind: str, name: str) -> list[tuple[str, Values]]:
    histograms = [step.figures[kind].get(name, {}) for step in steps]
    return [
        (f"{share:.0%} below".replace("%", " %"), [percentile(histogram, share) for histogram in histograms])
        for share in (0.5, 0.95)
    ]


def _medians(steps: Sequence[PeriodStep], name: str) -> list[float | None]:
    return [percentile(step.figures[GPU].get(name, {}), 0.5) for step in steps]


def _shares(steps: Sequence[PeriodStep]) -> list[float | None]:
    sums = (step.figures[GENERATIONS] for step in steps)
    ratios = (_ratio(figures.get("tokens_cached"), figures.get("tokens_in")) for figures in sums)
    return [None if ratio is None else 100 * ratio for ratio in ratios]


def _uncached(step: PeriodStep) -> float:
    figures = step.figures[GENERATIONS]
    return float(max(0, figures.get("tokens_in", 0) - figures.get("tokens_cached", 0)))


def _minutes(secs: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else value / 60 for value in secs]


def _late(histogram: dict[str, int]) -> str:
    return duration_text(percentile(histogram, 0.95))


def _ratio(part: float | None, whole: float | None) -> float | None:
    return (part or 0) / whole if whole else None


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.0%}".replace("%", " %")
