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
from inference.config.tokenizer import get_tokenizer  # noqa: E402
from inference.dispatch import Dispatcher  # noqa: E402
from inference.dispatch.generation_state import ActiveGeneration  # noqa: E402
from inference.dispatch.gpu_parts import GpuParts, GpuPolicy  # noqa: E402
from inference.dispatch.gpu_runner import GpuRunnerMaker  # noqa: E402
from inference.dispatch.runner_launcher import cpu_runner  # noqa: E402
from inference.dispatch.state_folder import StateFolder  # noqa: E402
from inference.engine.params import SamplingParams, SequenceParams  # noqa: E402
from inference.gpu.device.discovery import find_gpu  # noqa: E402
from inference.gpu.device.port import GpuDevice, SimulatedGpu  # noqa: E402
from inference.gpu.lease.fake import FakeLeaseClient  # noqa: E402
from inference.gpu.records.hand_over import HandOverRecord  # noqa: E402
from inference.token_stream.entries import AnyEntry, TokenEntry  # noqa: E402

GRANT_SECS = 3.0
PATIENCE_SECS = 600.0
ROUNDS = 3


class Rig:
    """A dispatcher with the real model, a GPU, and a lease that is granted and recalled on demand."""

    def __init__(self, folder: Path, *, is_simulated: bool) -> None:
        self.tokenizer = get_tokenizer()
        self.log: dict[ActiveGeneration, list[float]] = {}
        self.began = 0.0
        self.records: list[HandOverRecord] = []
        self.card: GpuDevice = SimulatedGpu(total_mb=65_536) if is_simulated else _card()
        self.lease_client = FakeLeaseClient(lambda event: self.dispatcher._events.put(event), grant_after_secs=None)
        delay_ms = 0.0 if is_simulated else None
        maker = GpuRunnerMaker(self.card, folder, n_layers=999, load_delay_ms=delay_ms)
        parts = GpuParts(
            device=self.card,
            make_runner=maker,
            make_lease_client=lambda post: self.lease_client,
            record=self.records.append,
            folder=StateFolder(settings.GEMMA_SHM_DIR, 1 << 30),
            policy=GpuPolicy(min_hold_secs=0.0, max_hold_secs=PATIENCE_SECS, linger_secs=PATIENCE_SECS),
            is_simulated=is_simulated,
        )
        self.dispatcher = Dispatcher(cpu_runner, self._sink, gpu=parts)

    def _sink(self, entries: Sequence[tuple[ActiveGeneration, AnyEntry]]) -> None:
        now = time.perf_counter()
        for generation, entry in entries:
            if isinstance(entry, TokenEntry):
                self.log.setdefault(generation, []).append(now)

    # ---- doing ----

    def ask(self, n_words: int, seed: int, max_tokens: int) -> ActiveGeneration:
        return self.submit(self.tokenizer.encode(text_of(n_words, seed=seed)), max_tokens)

    def submit(self, prompt: list[int], max_tokens: int) -> ActiveGeneration:
        params = SequenceParams(sampling=SamplingParams(seed=7), max_tokens=max_tokens, ignore_eos=True)
        generation = ActiveGeneration(uuid4(), 1, prompt, params, 1)
        self.began = time.perf_counter()
        self.dispatcher.add(generation)
        return generation

    def until(self, condition: Callable[[], object]) -> float:
        began = time.perf_counter()
        while not condition():
            if time.perf_counter() - began > PATIENCE_SECS:
                raise TimeoutError(f"nothing for {PATIENCE_SECS:.0f} s; {self.dispatcher.describe()}")
            time.sleep(0.0005)
        return time.perf_counter() - began

    def first_token_ms(self, generation: ActiveGeneration) -> float:
        began = self.began
        self.until(lambda: self.log.get(generation))
        return (self.log[generation][0] - began) * 1000

    def end(self, generation: ActiveGeneration) -> None:
        self.until(lambda: generation.wait(0) is not None)

    def is_at(self, state: str) -> bool:
        return bool(self.dispatcher.describe()["state"] == state)

    def grant(self) -> None:
        self.until(lambda: self.lease_client.is_requested)
        self.lease_client.grant()

    def to_card(self) -> None:
        self.dispatcher.hold("bench", PATIENCE_SECS)
        self.grant()
        self.until(lambda: self.is_at("gpu"))

    def to_cpu(self) -> float:
        """The other tenant wants it; ms until our process had ended, its memory was free and the lease given back."""
        n_records = len(self.records)
        self.dispatcher.release_session("")
        began = time.perf_counter()
        self.lease_client.recall("the bench wants it back")
        self.until(lambda: self.lease_client.lease is None)
        yield_ms = (time.perf_counter() - began) * 1000
        self.until(lambda: len(self.records) > n_records)
        return yield_ms

    def stop(self, *generations: ActiveGeneration) -> None:
        for generation in generations:
            self.dispatcher.cancel(generation.generation_id)
        for generation in generations:
            self.end(generation)

    @property
    def n_read(self) -> int:
        """Tokens of prompts that either runner has computed."""
        return self.dispatcher.meter.report().n_prefill_tokens

    @property
    def used_mb(self) -> int:
        pid = self.dispatcher.gpu_pid
        return 0 if pid is None else self.card.vram_used_mb_of([pid])


@contextmanager
def rig(folder: Path, *, is_simulated: bool) -> Iterator[Rig]:
    there = Rig(folder, is_simulated=is_simulated)
    there.dispatcher.begin()
    try:
        there.until(lambda: there.dispatcher.ready is not None)
        yield there
    finally:
        there.dispatcher.end(10.0)


def first_tokens(there: Rig, n_words: int) -> Iterator[tuple[str, str]]:
    """With and without a coordinator that takes its time: the CPU begins at once either way."""
    alone, waiting, loading = [], [], []
    n_before_grant = 0
    for number in range(ROUNDS):
        generation = there.ask(n_words, seed=100 + number, max_tokens=1)  # too short to ask for the GPU
        alone.append(there.first_token_ms(generation))
        there.end(generation)
        there.lease_client.grant_after_secs = GRANT_SECS
        generation = there.ask(n_words, seed=200 + number, max_tokens=100_000)
        waiting.append(there.first_token_ms(generation))
        n_before_grant += there.lease_client.lease is None
        there.until(lambda: there.is_at("loading"))
        there.lease_client.grant_after_secs = None
        late = there.ask(n_words, seed=300 + number, max_tokens=100_000)
        loading.append(there.first_token_ms(late))
        there.until(lambda: there.is_at("gpu"))
        there.stop(generation, late)
        there.to_cpu()
    yield "first token, CPU only", spread(alone, "ms")
    yield f"first token, lease granted after {GRANT_SECS:.0f} s", spread(waiting, "ms")
    yield "of these before the grant", f"{n_before_grant} of {ROUNDS}"
    ratio = statistics.median(waiting) / statistics.median(alone)
    yield "ratio of the medians (at most 1.2 is promised)", f"{ratio:.2f}"
    yield "first token, asked while the GPU's runner loads", spread(loading, "ms")


def in_mid_sentence(there: Rig, n_words: int, max_tokens: int) -> Iterator[tuple[str, str]]:
    """Move one answer to the GPU and back repeatedly; measure its speed on both and the gaps between its tokens."""
    before = there.card.free_mb
    generation = there.ask(n_words, seed=1, max_tokens=100_000)
    loads, yields, speeds = [], [], {"CPU": [0.0], "card": [0.0]}

    def answer(where: str) -> None:
        n_before = len(there.log.get(generation, []))
        there.until(lambda: len(there.log.get(generation, [])) >= n_before + max_tokens)
        speeds[where].append(speed(there.log[generation][n_before + 1 :]))

    answer("CPU")
    during = 0
    for _ in range(ROUNDS):
        there.grant()
        there.until(lambda: there.is_at("gpu"))
        answer("card")
        during = there.used_mb
        yields.append(there.to_cpu())
        loads.append(there.records[-1].loaded_ms or 0.0)
        answer("CPU")
    gaps = [(later - earlier) * 1000 for earlier, later in itertools.pairwise(there.log[generation])]
    there.stop(generation)
    for where, found in speeds.items():
        yield f"tokens/s on the {where}", spread(found[1:], "")
    yield "grant to ready (load)", spread(loads, "ms")
    yield "wanted back to free (yield; at most 1000 is promised)", spread(yields, "ms")
    longest = sorted(gaps)[-2 * ROUNDS :]
    yield (
        "gaps between two tokens, median and those of the moves",
        f"{statistics.median(gaps):.0f}, {spread(longest, 'ms')}",
    )
    yield "memory of ours on the GPU before / during / after", f"0 / {during} / {there.used_mb} MB"
    yield "free on the GPU before / after", f"{before} / {there.card.free_mb} MB"


def long_chat(there: Rig, n_tokens: int) -> Iterator[tuple[str, str]]:
    """The next turn of a long chat: never moved, on the GPU after a move, and on the CPU after the way back."""
    prompt = there.tokenizer.encode(text_of(2 * n_tokens, seed=5))[:n_tokens]
    generation = there.submit(prompt, 4)
    yield f"first token of {n_tokens} tokens, cold, CPU", f"{there.first_token_ms(generation):.0f} ms"
    ways = (("stayed", None), ("on the GPU", there.to_card), ("back on the CPU", there.to_cpu))
    found: dict[str, list[tuple[float, int, int]]] = {}
    for name, move in ways[:1] * ROUNDS + ways[1:] * ROUNDS:
        there.end(generation)
        n_known = len(prompt) + len(generation.tokens)
        prompt = prompt + [token.token for token in generation.tokens] + there.tokenizer.encode(" And then?")
        if move is not None:
            move()
        n_read = there.n_read
        generation = there.submit(prompt, 4)
        first_ms = there.first_token_ms(generation)
        there.end(generation)
        found.setdefault(name, []).append((first_ms, there.n_read - n_read, len(prompt) - n_known))
    for name, turns in found.items():
        n_read, n_new = max(each[1] for each in turns), max(each[2] for each in turns)
        summary = f"{spread([each[0] for each in turns], 'ms')}; computed at most {n_read} tokens, {n_new} are new"
        yield f"first token of its next turn, {name}", summary
    stayed = statistics.median(each[0] for each in found["stayed"])
    for name in ("on the GPU", "back on the CPU"):
        ratio = statistics.median(each[0] for each in found[name]) / stayed
        yield f"... against the one that stayed, {name} (3 is promised)", f"{ratio:.2f}"
    last = there.records[-1]
    states = f"{last.moved_bytes / 1e6:.1f} MB, {last.n_snapshots} saved states"
    summary = f"{states}, in {last.moved_ms:.0f} ms of the runners"
    yield "moved in the last of these stays, both ways", summary
    there.to_card()
    generation = there.submit(prompt, 100_000)
    there.first_token_ms(generation)
    yield f"wanted back in an answer to {len(prompt)} tokens, to free", f"{there.to_cpu():.0f} ms"
    there.stop(generation)


def speed(times: Sequence[float]) -> float:
    return (len(times) - 1) / (times[-1] - times[0])


def spread(values: Sequence[float], unit: str) -> str:
    return f"{statistics.median(values):.0f} {unit} ({min(values):.0f} to {max(values):.0f})"


def _card() -> GpuDevice:
    card = find_gpu("auto")
    if card is None:
        raise SystemExit("nvidia-smi lists a card, but NVML does not: is nvidia-ml-py installed?")
    return card


def main() -> None:
    title, is_simulated, n_chat, n_answered = sys.argv[1], sys.argv[2] == "1", int(sys.argv[3]), int(sys.argv[4])
    label = "SIMULATED: the GPU is a second runner on the CPU" if is_simulated else "on the GPU"
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
