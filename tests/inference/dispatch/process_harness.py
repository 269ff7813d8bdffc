"""A dispatcher over real runner processes, with a simulated GPU and a scripted lease client."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psutil

from inference.config.tokenizer import get_tokenizer
from inference.dispatch import Dispatcher
from inference.dispatch.generation_state import ActiveGeneration, GenerationOutcome
from inference.dispatch.gpu_parts import GpuParts, GpuPolicy
from inference.dispatch.gpu_runner import GpuRunnerMaker
from inference.dispatch.gpu_state import GpuState
from inference.dispatch.runner_launcher import cpu_runner
from inference.dispatch.state_folder import StateFolder
from inference.engine.params import SamplingParams, SequenceParams
from inference.gpu.device.port import SimulatedGpu
from inference.gpu.lease.fake import FakeLeaseClient
from inference.gpu.lease.port import Post
from inference.gpu.records.hand_over import HandOverRecord
from inference.token_stream.entries import AnyEntry, TokenEntry

PATIENCE_SECS = 180.0
# Nothing leaves the GPU by itself, only on the test's command.
POLICY = GpuPolicy(min_hold_secs=0.0, max_hold_secs=600.0, linger_secs=600.0, yield_patience_secs=30.0)


class Party:
    """``card_dir`` is the tmpfs; ``streams`` holds the entries that readers of the log would receive."""

    def __init__(self, folder: Path, *, load_delay_ms: float = 0.0, policy: GpuPolicy = POLICY) -> None:
        self.folder = folder
        self.records: list[HandOverRecord] = []
        self.streams: dict[ActiveGeneration, list[AnyEntry]] = {}
        self.pids: set[int] = set()
        (folder / "shm").mkdir()
        self.card = SimulatedGpu()
        self.maker = GpuRunnerMaker(self.card, folder, n_layers=4, load_delay_ms=load_delay_ms)
        parts = GpuParts(
            device=self.card,
            make_runner=self.maker,
            make_lease_client=self._keep,
            record=self.records.append,
            folder=StateFolder(folder / "shm", 64 << 20),
            obstacle=self.maker.obstacle,
            policy=policy,
            is_simulated=True,
        )
        checkpoint_folder = StateFolder(folder / "shm")
        self.dispatcher = Dispatcher(cpu_runner, self._sink, gpu=parts, checkpoint_folder=checkpoint_folder)

    def _keep(self, post: Post) -> FakeLeaseClient:
        self.lease_client = FakeLeaseClient(post, grant_after_secs=None)
        return self.lease_client

    def _sink(self, entries: Sequence[tuple[ActiveGeneration, AnyEntry]]) -> None:
        for generation, entry in entries:
            self.streams.setdefault(generation, []).append(entry)

    # ---- doing ----

    def ask(self, text: str, *, session_id: str = "", **changes: object) -> ActiveGeneration:
        """``changes`` are of the parameters; greedy with a fixed seed by default."""
        tokenizer = get_tokenizer()
        prompt = tokenizer.encode(
            f"<bos><start_of_turn>user\n{text}<end_of_turn>\n<start_of_turn>model\n", special=True
        )
        return self.submit(prompt, session_id=session_id, **changes)

    def submit(self, prompt: list[int], *, session_id: str = "", **changes: object) -> ActiveGeneration:
        sampling = {name: changes.pop(name) for name in list(changes) if name in SamplingParams.__struct_fields__}
        params = SequenceParams(
            sampling=SamplingParams(**{"seed": 1, "temperature": 0.0, **sampling}),  # type: ignore[arg-type]
            **{"max_tokens": 4000, **changes},  # type: ignore[arg-type]
        )
        generation = ActiveGeneration(uuid4(), 1, prompt, params, 1, session_id=session_id)
        self.dispatcher.add(generation)
        return generation

    def until(self, condition: Callable[[], object], secs: float = PATIENCE_SECS) -> None:
        deadline = time.monotonic() + secs
        while not condition():
            assert time.monotonic() < deadline, f"not within {secs:.0f} s; {self.dispatcher.describe()}"
            time.sleep(0.002)
            self.note_pids()

    def note_pids(self) -> None:
        self.pids |= {pid for pid in (self.dispatcher.runner_pid, self.dispatcher.gpu_pid) if pid is not None}

    @property
    def state(self) -> GpuState:
        return GpuState(self.dispatcher.describe()["state"])

    def at(self, *stages: GpuState) -> bool:
        return self.state in stages

    def to_card(self) -> None:
        """Request the lease, and wait until it is granted, the model loaded and the sequences moved."""
        self.until(lambda: self.lease_client.is_requested)
        assert self.lease_client.grant() is not None
        self.until(lambda: self.at(GpuState.GPU))
        self.note_pids()

    def to_cpu(self) -> float:
        """Wanted back; the secs until the lease was released."""
        began = time.monotonic()
        self.lease_client.recall("the other program wants it")
        self.until(lambda: self.lease_client.lease is None)
        return time.monotonic() - began

    # ---- seen ----

    def text(self, generation: ActiveGeneration) -> str:
        """Return the text that a reader of the log has at the end; its indexes have no gap and no repetition."""
        outcome = self.outcome(generation)
        tokens = [entry for entry in self.streams[generation] if isinstance(entry, TokenEntry)]
        assert [token.index for token in tokens] == list(range(1, len(tokens) + 1))
        assert outcome.final_text is not None
        return "".join(token.text for token in tokens) + outcome.final_text.text

    def outcome(self, generation: ActiveGeneration) -> GenerationOutcome:
        outcome = generation.wait(PATIENCE_SECS)
        assert outcome is not None, f"no end; {self.dispatcher.describe()}"
        return outcome

    def is_clean(self) -> bool:
        """No state of ours is on its way, and none of our processes is left."""
        states = [path for path in (self.folder / "shm").rglob("*.move") if path.is_file()]
        return not states and not any(map(_lives, self.pids))


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def party(folder: Path, **changes: object) -> Iterator[Party]:
    """Everything is gone at the end, whatever happened."""
    there = Party(folder, **changes)  # type: ignore[arg-type]
    there.dispatcher.begin()
    try:
        there.until(lambda: there.dispatcher.ready is not None)
        yield there
    finally:
        there.note_pids()
        there.dispatcher.end(10.0)
    there.until(there.is_clean, 5.0)
    assert there.lease_client.lease is None
    assert list((folder / "shm").glob("gemma-kv-*/*-*")) == []
    assert not [thread for thread in threading.enumerate() if thread.name in ("placement", "runner launcher")]


def random_hand_overs(there: Party, n_hand_overs: int, seed: int, *, is_done: Callable[[], bool]) -> tuple[int, int]:
    """Grant and recall the lease at random moments; return the numbers of sessions, and of those on the GPU."""
    draw, n_granted, n_reached = random.Random(seed), 0, 0
    while n_granted < n_hand_overs:
        there.until(lambda: there.lease_client.is_requested or is_done())
        if is_done():
            break
        if there.lease_client.grant() is None:
            continue  # withdrawn in this moment: the last of them has ended
        n_granted += 1
        if draw.random() < 0.8:
            there.until(lambda: there.at(GpuState.GPU) or there.lease_client.lease is None)
            n_reached += there.at(GpuState.GPU)
        time.sleep(draw.random() * 0.05)
        (there.lease_client.lose if draw.random() < 0.15 else there.lease_client.recall)()
        there.until(lambda: there.lease_client.lease is None)
    return n_granted, n_reached
