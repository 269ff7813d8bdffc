"""The measurements of ``bench.gpu_handover``, in a process that it starts with the settings in its environment.

``python -m bench.handover_measures <title> <simulated: 0 or 1> <tokens of the chat> <tokens answered>``
"""

import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import django

django.setup()

from django.conf import settings  # noqa: E402  the settings are read by what follows

from bench.prompts import text_of  # noqa: E402
from inference.engine.params import SamplingParams, SequenceParams  # noqa: E402
from inference.gpu.card import Card, SimulatedCard  # noqa: E402
from inference.gpu.cards import find_card  # noqa: E402
from inference.gpu.fake_keeper import FakeKeeper  # noqa: E402
from inference.gpu.hand_over import HandOverRecord  # noqa: E402
from inference.gpu_runner import GpuRunnerMaker  # noqa: E402
from inference.launcher import cpu_runner  # noqa: E402
from inference.lives import Live  # noqa: E402
from inference.placement import Placement  # noqa: E402
from inference.placement.gpu_parts import GpuParts  # noqa: E402
from inference.placement.policy import GpuPolicy  # noqa: E402
from inference.placement.state_folder import StateFolder  # noqa: E402
from inference.token_log_entries import AnyEntry, Token  # noqa: E402
from inference.tokenizer import get_tokenizer  # noqa: E402

GRANT_SECS = 3.0
PATIENCE_SECS = 600.0
ROUNDS = 3


class Rig:
    """A placement of the real model, a card, and a lease that is granted and wanted back when told."""

    def __init__(self, folder: Path, *, is_simulated: bool) -> None:
        self.tokenizer = get_tokenizer()
        self.log: dict[Live, list[float]] = {}
        self.began = 0.0
        self.records: list[HandOverRecord] = []
        self.card: Card = SimulatedCard(total_mb=65_536) if is_simulated else _card()
        self.keeper = FakeKeeper(lambda event: self.placement._events.put(event), grant_after_secs=None)
        delay_ms = 0.0 if is_simulated else None
        maker = GpuRunnerMaker(self.card, folder, n_layers=999, load_delay_ms=delay_ms)
        parts = GpuParts(
            card=self.card,
            make_runner=maker,
            make_keeper=lambda post: self.keeper,
            record=self.records.append,
            folder=StateFolder(settings.GEMMA_SHM_DIR, 1 << 30),
            policy=GpuPolicy(min_hold_secs=0.0, max_hold_secs=PATIENCE_SECS, linger_secs=PATIENCE_SECS),
            is_simulated=is_simulated,
        )
        self.placement = Placement(cpu_runner, self._sink, gpu=parts)

    def _sink(self, entries: Sequence[tuple[Live, AnyEntry]]) -> None:
        now = time.perf_counter()
        for live, entry in entries:
            if isinstance(entry, Token):
                self.log.setdefault(live, []).append(now)

    # ---- doing ----

    def ask(self, n_words: int, seed: int, max_tokens: int) -> Live:
        return self.submit(self.tokenizer.encode(text_of(n_words, seed=seed)), max_tokens)

    def submit(self, prompt: list[int], max_tokens: int) -> Live:
        params = SequenceParams(sampling=SamplingParams(seed=7), max_tokens=max_tokens, ignore_eos=True)
        live = Live(uuid4(), 1, prompt, params, 1)
        self.began = time.perf_counter()
        self.placement.add(live)
        return live

    def until(self, condition: Callable[[], object]) -> float:
        began = time.perf_counter()
        while not condition():
            if time.perf_counter() - began > PATIENCE_SECS:
                raise TimeoutError(f"nothing for {PATIENCE_SECS:.0f} s; {self.placement.describe()}")
            time.sleep(0.0005)
        return time.perf_counter() - began

    def first_token_ms(self, live: Live) -> float:
        began = self.began
        self.until(lambda: self.log.get(live))
        return (self.log[live][0] - began) * 1000

    def end(self, live: Live) -> None:
        self.until(lambda: live.wait(0) is not None)

    def is_at(self, state: str) -> bool:
        return bool(self.placement.describe()["state"] == state)

    def grant(self) -> None:
        self.until(lambda: self.keeper.is_wanted)
        self.keeper.grant()

    def to_card(self) -> None:
        self.placement.hold("bench", PATIENCE_SECS)
        self.grant()
        self.until(lambda: self.is_at("gpu"))

    def to_cpu(self) -> float:
        """Ms until the card was free and the lease given back."""
        began = time.perf_counter()
        self.placement.yield_card("the bench wants it back")
        self.until(lambda: self.keeper.lease is None)
        return (time.perf_counter() - began) * 1000

    @property
    def used_mb(self) -> int:
        pid = self.placement.gpu_pid
        return 0 if pid is None else self.card.vram_used_mb_of([pid])


@contextmanager
def rig(folder: Path, *, is_simulated: bool) -> Iterator[Rig]:
    there = Rig(folder, is_simulated=is_simulated)
    there.placement.begin()
    try:
        there.until(lambda: there.placement.ready is not None)
        yield there
    finally:
        there.placement.end(10.0)


def first_tokens(there: Rig, n_words: int) -> Iterator[tuple[str, str]]:
    """With and without a coordinator that takes its time: the CPU begins at once either way."""
    alone, waiting = [], []
    for number in range(ROUNDS):
        live = there.ask(n_words, seed=100 + number, max_tokens=1)  # too short to ask for the card
        alone.append(there.first_token_ms(live))
        there.end(live)
        live = there.ask(n_words, seed=200 + number, max_tokens=1000)
        waiting.append(there.first_token_ms(live))
        there.until(lambda: there.keeper.is_wanted)
        there.placement.cancel(live.generation_id)
        there.end(live)
    yield "first token, CPU only", spread(alone, "ms")
    yield f"first token, lease granted after {GRANT_SECS:.0f} s", spread(waiting, "ms")
    yield (
        "ratio of the medians (at most 1.2 is promised)",
        f"{statistics.median(waiting) / statistics.median(alone):.2f}",
    )


def in_mid_sentence(there: Rig, n_words: int, max_tokens: int) -> Iterator[tuple[str, str]]:
    """One answer goes to the card and back; its speed on both, and the longest gap between its tokens."""
    before = there.card.free_mb
    live = there.ask(n_words, seed=1, max_tokens=100_000)
    there.until(lambda: len(there.log.get(live, [])) >= max_tokens)
    cpu = speed(there.log[live])
    began = time.perf_counter()
    there.grant()
    there.until(lambda: there.is_at("moving") or there.is_at("gpu"))
    load_ms = (time.perf_counter() - began) * 1000
    there.until(lambda: there.is_at("gpu"))
    n_before = len(there.log[live])
    there.until(lambda: len(there.log[live]) >= n_before + max_tokens)
    gpu = speed(there.log[live][n_before + 1 :])
    during = there.used_mb
    n_before = len(there.log[live])
    yield_ms = there.to_cpu()
    there.until(lambda: len(there.log[live]) >= n_before + 8)
    times = there.log[live]
    gaps = [(later - earlier) * 1000 for earlier, later in itertools.pairwise(times)]
    there.placement.cancel(live.generation_id)
    there.end(live)
    yield "tokens/s on the CPU", f"{cpu:.1f}"
    yield "tokens/s on the card", f"{gpu:.1f}"
    yield "grant to ready (load)", f"{load_ms:.0f} ms"
    yield "wanted back to free (yield)", f"{yield_ms:.0f} ms"
    yield "longest gap between two tokens of that answer", f"{max(gaps):.0f} ms (median {statistics.median(gaps):.0f})"
    yield "memory of ours on the card before / during / after", f"0 / {during} / {there.used_mb} MB"
    yield "free on the card before / after", f"{before} / {there.card.free_mb} MB"


def long_chat(there: Rig, n_tokens: int) -> Iterator[tuple[str, str]]:
    """The next turn of a long chat: never moved, on the card after a move, and on the CPU after the way back."""
    prompt = there.tokenizer.encode(text_of(2 * n_tokens, seed=5))[:n_tokens]
    cold = there.submit(prompt, 4)
    yield f"first token of {n_tokens} tokens, cold, CPU", f"{there.first_token_ms(cold):.0f} ms"
    turns: dict[str, float] = {}
    live = cold
    for name, move in (("stayed", None), ("on the card", there.to_card), ("back on the CPU", there.to_cpu)):
        there.end(live)
        prompt = prompt + [token.token for token in live.tokens] + there.tokenizer.encode(" And then?")
        if move is not None:
            move()
        live = there.submit(prompt, 4)
        turns[name] = there.first_token_ms(live)
        there.end(live)
        outcome = live.wait(0)
        n_new = len(prompt) - (outcome.n_cached if outcome else 0)
        yield f"first token of its next turn, {name}", f"{turns[name]:.0f} ms ({n_new} tokens computed)"
    last = there.records[-1]
    yield "moved in that stay", f"{last.moved_bytes / 1e6:.1f} MB in {last.moved_ms:.0f} ms of the runners"


def speed(times: Sequence[float]) -> float:
    return (len(times) - 1) / (times[-1] - times[0])


def spread(values: Sequence[float], unit: str) -> str:
    return f"{statistics.median(values):.0f} {unit} ({min(values):.0f} to {max(values):.0f})"


def _card() -> Card:
    card = find_card("auto")
    if card is None:
        raise SystemExit("nvidia-smi lists a card, but NVML does not: is nvidia-ml-py installed?")
    return card


def main() -> None:
    title, is_simulated, n_chat, n_answered = sys.argv[1], sys.argv[2] == "1", int(sys.argv[3]), int(sys.argv[4])
    label = "SIMULATED: the card is a second runner on the CPU" if is_simulated else "on the card"
    print(f"\n{title}; {label}", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="gemma-lock-") as folder,
        rig(Path(folder), is_simulated=is_simulated) as there,
    ):
        print(f"{there.card.name}, {there.card.total_mb} MB", flush=True)
        parts = (first_tokens(there, 60), in_mid_sentence(there, 60, n_answered), long_chat(there, n_chat))
        for what, value in itertools.chain.from_iterable(parts):
            print(f"  {what:<55} {value}", flush=True)


if __name__ == "__main__":
    main()
