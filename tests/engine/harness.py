"""A loop without a process: frames in, frames out, steps on demand."""

from collections.abc import Sequence as Many
from dataclasses import dataclass, field
from pathlib import Path

from inference.engine.backends.backend import Backend, Logits, Slice
from inference.engine.backends.fake_backend import FakeBackend
from inference.engine.backends.vocabulary import Vocabulary
from inference.engine.config import BackendKind, EngineConfig
from inference.engine.core.engine_loop import EngineLoop
from inference.engine.kv_cache.snapshots import SnapshotDisk
from inference.engine.params import SamplingParams, SequenceParams
from inference.engine.protocol.frames import (
    Cancel,
    Emission,
    Ended,
    FromRunner,
    PrefillProgress,
    Rejected,
    Step,
    Submit,
)

MAX_STEPS = 20_000


def fake_config(**changes: object) -> EngineConfig:
    values: dict[str, object] = {
        "model_path": Path("/nowhere.gguf"),
        "backend": BackendKind.FAKE,
        "context_size": 4096,
        "batch_size": 64,
        **changes,
    }
    return EngineConfig(**values)  # type: ignore[arg-type]


def params(**changes: object) -> SequenceParams:
    """Return parameters, greedy by default; sampling fields are given by their names."""
    sampling: dict[str, object] = {"seed": 1, "temperature": 0.0}
    own: dict[str, object] = {}
    for name, value in changes.items():
        target = sampling if name in SamplingParams.__struct_fields__ else own
        target[name] = value
    return SequenceParams(sampling=SamplingParams(**sampling), **own)  # type: ignore[arg-type]


def turn(vocabulary: Vocabulary, text: str) -> list[int]:
    """One user turn in Gemma's format, as the fake reads it."""
    opening = vocabulary.encode("<bos><start_of_turn>user\n", special=True)
    closing = vocabulary.encode("<end_of_turn>\n<start_of_turn>model\n", special=True)
    return opening + vocabulary.encode(text, special=False) + closing


@dataclass
class Harness:
    """Keeps every frame, and reads them back as a client would."""

    backend: Backend
    config: EngineConfig
    frames: list[FromRunner] = field(default_factory=list)
    submitted: list[Submit] = field(default_factory=list)

    disk: SnapshotDisk | None = None
    settings: str = "same"

    def __post_init__(self) -> None:
        self.loop = EngineLoop(self.backend, self.config, self.frames.append, self.disk, self.settings)

    @classmethod
    def fake(cls, *, window: int = 0, n_slots: int | None = None, **changes: object) -> "Harness":
        config = fake_config(**changes)
        backend = FakeBackend(
            n_cells=config.context_size,
            n_slots=n_slots or 2 * config.parallel,
            batch_size=config.batch_size,
            window=window,
            max_outputs=max(n_slots or 2 * config.parallel, 1 + config.draft_max),
        )
        return cls(backend, config)

    def submit(
        self,
        sequence_id: str,
        prompt: list[int],
        *,
        emitted: Many[int] = (),
        priority: int = 1,
        timeout_secs: float | None = None,
        **changes: object,
    ) -> None:
        submit = Submit(
            sequence_id=sequence_id,
            prompt=prompt,
            params=params(**changes),
            emitted=list(emitted),
            priority=priority,
            timeout_secs=timeout_secs,
        )
        self.submitted.append(submit)
        self.loop.handle(submit)

    def ask(self, sequence_id: str, text: str, **changes: object) -> None:
        self.submit(sequence_id, turn(self.backend.vocabulary, text), **changes)  # type: ignore[arg-type]

    def cancel(self, sequence_id: str) -> None:
        self.loop.handle(Cancel(sequence_id))

    def run(self) -> "Harness":
        """Step until idle."""
        for _ in range(MAX_STEPS):
            if not self.loop.step():
                return self
        raise AssertionError(f"still busy after {MAX_STEPS} steps")

    def step_until_first_token(self, sequence_id: str) -> None:
        for _ in range(MAX_STEPS):
            if self.tokens(sequence_id):
                return
            assert self.loop.step(), f"idle, and {sequence_id} has no token"
        raise AssertionError(f"no token of {sequence_id} after {MAX_STEPS} steps")

    # ---- results ----

    def steps(self) -> list[Step]:
        return [frame for frame in self.frames if isinstance(frame, Step)]

    def emissions(self, sequence_id: str) -> list[Emission]:
        return [each for step in self.steps() for each in step.emissions if each.sequence_id == sequence_id]

    def tokens(self, sequence_id: str) -> list[int]:
        return [each.token for each in self.emissions(sequence_id)]

    def progress(self, sequence_id: str) -> list[tuple[int, int]]:
        return [
            (frame.n_done, frame.n_total)
            for frame in self.frames
            if isinstance(frame, PrefillProgress) and frame.sequence_id == sequence_id
        ]

    def ends(self, sequence_id: str) -> list[Ended | Rejected]:
        return [
            frame for frame in self.frames if isinstance(frame, Ended | Rejected) and frame.sequence_id == sequence_id
        ]

    def ended(self, sequence_id: str) -> Ended:
        ends = self.ends(sequence_id)
        assert len(ends) == 1, f"{sequence_id} ended {len(ends)} times: {ends}"
        assert isinstance(ends[0], Ended), f"{sequence_id} was rejected: {ends[0]}"
        return ends[0]

    def rejected(self, sequence_id: str) -> Rejected:
        ends = self.ends(sequence_id)
        assert len(ends) == 1, f"{sequence_id} ended {len(ends)} times: {ends}"
        assert isinstance(ends[0], Rejected), f"{sequence_id} was not rejected: {ends[0]}"
        return ends[0]

    def text(self, sequence_id: str) -> str:
        return "".join(each.text for each in self.emissions(sequence_id)) + self.ended(sequence_id).text


class RecordingBackend:
    """A backend that records decoded slices and their logits, and passes everything on to another one."""

    def __init__(self, inner: Backend) -> None:
        self.inner = inner
        self.vocabulary = inner.vocabulary
        self.watch = inner.watch
        self.n_cells, self.n_slots, self.window = inner.n_cells, inner.n_slots, inner.window
        self.batch_size, self.max_outputs = inner.batch_size, inner.max_outputs
        self.batches: list[list[Slice]] = []
        self.rows: list[Logits] = []
        self.trims: list[tuple[int, int]] = []
        self.copies: list[tuple[int, int, int]] = []
        self.n_saved = self.n_loaded = 0

    def decode(self, slices: Many[Slice]) -> list[Logits] | None:
        self.batches.append(list(slices))
        logits = self.inner.decode(slices)
        self.rows += [row.copy() for row in logits or []]
        return logits

    def remove(self, slot: int) -> None:
        self.inner.remove(slot)

    def trim(self, slot: int, length: int) -> None:
        self.trims.append((slot, length))
        self.inner.trim(slot, length)

    def first_position(self, slot: int) -> int:
        return self.inner.first_position(slot)

    def n_positions(self, slot: int) -> int:
        return self.inner.n_positions(slot)

    def copy(self, source: int, target: int, length: int) -> None:
        self.copies.append((source, target, length))
        self.inner.copy(source, target, length)

    def save(self, slot: int) -> bytes:
        self.n_saved += 1
        return self.inner.save(slot)

    def load(self, slot: int, state: bytes) -> bool:
        self.n_loaded += 1
        return self.inner.load(slot, state)

    def close(self) -> None:
        self.inner.close()
