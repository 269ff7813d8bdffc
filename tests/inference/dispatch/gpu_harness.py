"""A dispatcher with two stub runners, a scripted lease client, and a clock that the test advances."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from inference.dispatch import Dispatcher
from inference.dispatch.events import AddGeneration, Event
from inference.dispatch.generation_state import ActiveGeneration
from inference.dispatch.gpu_parts import GpuParts, GpuPolicy
from inference.dispatch.gpu_residency import GpuResidency
from inference.dispatch.gpu_state import GpuState
from inference.dispatch.runner_launcher import FrameReceived, RunnerExited, RunnerStarted, RunnerStartFailed
from inference.dispatch.state_folder import StateFolder
from inference.engine.protocol.frames import (
    CacheExported,
    Export,
    ExportCache,
    Exported,
    ExportedSequence,
    FromRunner,
    Import,
    Imported,
)
from inference.errors import GpuUnavailable
from inference.gpu.lease.fake import FakeLeaseClient
from inference.gpu.lease.port import LeaseEvent, Post
from inference.gpu.records.hand_over import HandOverRecord
from inference.token_stream.entries import AnyEntry, StatusEntry, TokenEntry
from tests.inference.making import PARAMS
from tests.inference.stub_runner import READY, StubRunner, make_stub, step

POLICY = GpuPolicy(min_hold_secs=5.0, max_hold_secs=60.0, linger_secs=3.0)


@dataclass
class StubGpu:
    uuid: str = "GPU-stub"
    name: str = "stub card"
    total_mb: int = 8192
    free_mb: int = 8192
    used_mb: int = 0
    is_away: bool = False
    used_by: Callable[[], int] | None = None
    requests: list[list[int]] = field(default_factory=list)

    def vram_used_mb_of(self, pids: Iterable[int]) -> int:
        self.requests.append(list(pids))
        if self.is_away:
            raise GpuUnavailable("the driver does not answer")
        return self.used_by() if self.used_by else self.used_mb


@dataclass
class GpuHarness:
    """``cpu`` and ``gpu`` are the stub runners that are there now."""

    folder: Path
    now: float = 100.0
    card: StubGpu = field(default_factory=StubGpu)
    logged: list[tuple[ActiveGeneration, AnyEntry]] = field(default_factory=list)
    records: list[HandOverRecord] = field(default_factory=list)
    obstacle: str | None = None

    def __post_init__(self) -> None:
        self.events: list[LeaseEvent] = []
        parts = GpuParts(
            device=self.card,
            make_runner=make_stub,
            make_lease_client=self._keep,
            record=self.records.append,
            folder=StateFolder(self.folder, 1 << 20),
            policy=POLICY,
            is_simulated=True,
            obstacle=lambda: self.obstacle,
        )
        self.dispatcher = Dispatcher(make_stub, self.logged.extend, gpu=parts, clock=lambda: self.now)
        self.cpu = self.gpu = StubRunner()
        self.do()
        self.start_cpu()

    def _keep(self, post: Post) -> FakeLeaseClient:
        self.lease_client = FakeLeaseClient(self.events.append, grant_after_secs=None)
        return self.lease_client

    # ---- moving it ----

    @property
    def residency(self) -> GpuResidency:
        assert self.dispatcher._loop.residency is not None
        return self.dispatcher._loop.residency

    @property
    def state(self) -> GpuState:
        return self.residency.state

    def at(self, state: GpuState) -> bool:
        return self.state is state

    def has_lease(self) -> bool:
        return self.lease_client.lease is not None

    def do(self, *events: Event) -> None:
        lease_events, self.events[:] = list(self.events), []
        assert self.dispatcher.step([*lease_events, *events])

    def wait(self, secs: float) -> None:
        self.now += secs
        self.do()

    def start_cpu(self) -> None:
        self.cpu = StubRunner(pid=1000)
        self.do(RunnerStarted(self._cpu_number, self.cpu, READY))

    def start_gpu(self) -> None:
        self.gpu = StubRunner(pid=2000)
        self.do(RunnerStarted(self._gpu_number, self.gpu, READY))

    @property
    def _cpu_number(self) -> int:
        return self.dispatcher._loop.cpu._number

    @property
    def _gpu_number(self) -> int:
        assert self.dispatcher._loop.gpu is not None
        return self.dispatcher._loop.gpu._number

    def cpu_says(self, *frames: FromRunner) -> None:
        self.do(*[FrameReceived(self._cpu_number, frame) for frame in frames])

    def gpu_says(self, *frames: FromRunner) -> None:
        self.do(*[FrameReceived(self._gpu_number, frame) for frame in frames])

    def cpu_dies(self) -> None:
        self.do(RunnerExited(self._cpu_number, "killed by SIGKILL"))

    def gpu_dies(self) -> None:
        self.do(RunnerExited(self._gpu_number, "killed by SIGKILL"))

    def gpu_leaves_by_itself(self) -> None:
        self.do(RunnerExited(self._gpu_number, "its deadline was not extended in time", has_left=True))

    def gpu_does_not_start(self, pid: int | None = None) -> None:
        self.do(RunnerStartFailed(self._gpu_number, "runner_died", "killed by SIGKILL", pid))

    # ---- whole ways ----

    def add(self, n_generations: int = 1, **changes: object) -> list[ActiveGeneration]:
        values: dict[str, Any] = {"priority": 1, **changes}
        generations = [ActiveGeneration(uuid4(), 1, [1, 2, 3], PARAMS, **values) for _ in range(n_generations)]
        self.do(*map(AddGeneration, generations))
        return generations

    def say(self, generations: list[ActiveGeneration]) -> None:
        """Emit one more token of each sequence."""
        for generation in generations:
            frame = step((generation.sequence_id, len(generation.tokens) + 1, "x"))
            (self.gpu_says if generation.device == "gpu" else self.cpu_says)(frame)

    def grant(self) -> None:
        assert self.lease_client.grant() is not None
        self.do()

    def give_out(self, runner: StubRunner) -> list[FromRunner]:
        """Reply as a runner does to an export of all sequences; each state is a file."""
        answers: list[FromRunner] = []
        requests = [frame for frame in runner.sent if isinstance(frame, Export | ExportCache | Import)]
        for frame in requests:
            runner.sent.remove(frame)
            if isinstance(frame, Export):
                answers.append(Exported([self._given(each, Path(frame.folder)) for each in frame.sequence_ids], 2.0))
            elif isinstance(frame, ExportCache):
                copy = Path(frame.folder) / "copy.move"
                copy.write_bytes(b"copy")
                answers.append(CacheExported(paths=[str(copy)], n_bytes=50, ms=1.0, is_complete=True))
            else:
                for path in frame.paths:
                    Path(path).unlink(missing_ok=True)
                answers.append(Imported(len(frame.paths), 1.0))
        return answers

    def _given(self, sequence_id: str, folder: Path) -> ExportedSequence:
        path = folder / f"{sequence_id.replace('/', '-')}.move"
        path.write_bytes(b"state")
        return ExportedSequence(sequence_id, str(path), 100, 1, 3.0, 4.0)

    def cpu_gives_out(self) -> None:
        self.cpu_says(*self.give_out(self.cpu))

    def gpu_gives_out(self) -> None:
        self.gpu_says(*self.give_out(self.gpu))

    def reach(self, state: GpuState, n_generations: int = 2) -> list[ActiveGeneration]:
        """With so many generations, each with a token; in LEAVING they have moved back."""
        generations = self.add(n_generations)
        self.say(generations)
        if state is GpuState.WAITING:
            return generations
        self.grant()
        self.cpu_gives_out()  # copies ahead
        if state is not GpuState.LOADING:
            self.start_gpu()
        if state in (GpuState.GPU, GpuState.YIELDING, GpuState.LEAVING):
            self.cpu_gives_out()
        if state in (GpuState.YIELDING, GpuState.LEAVING):
            self.recall()
        if state is GpuState.LEAVING:
            self.gpu_gives_out()
        assert self.state is state
        return generations

    def recall(self) -> None:
        self.lease_client.recall("transcription wants the GPU")
        self.do()

    def lose(self) -> None:
        self.lease_client.lose()
        self.do()

    # ---- results ----

    def texts(self, generation: ActiveGeneration) -> str:
        return "".join(entry.text for one, entry in self.logged if one is generation and isinstance(entry, TokenEntry))

    def states(self, generation: ActiveGeneration) -> list[str]:
        return [entry.state for one, entry in self.logged if one is generation and isinstance(entry, StatusEntry)]

    def reasons(self, generation: ActiveGeneration) -> list[str]:
        return [
            entry.reason
            for one, entry in self.logged
            if one is generation and isinstance(entry, StatusEntry) and entry.reason
        ]

    def record(self) -> HandOverRecord:
        """The last one; they are written in a thread."""
        deadline = time.monotonic() + 5
        while not self.records and time.monotonic() < deadline:
            time.sleep(0.005)
        return self.records[-1]

    def files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*.move") if path.is_file()]
