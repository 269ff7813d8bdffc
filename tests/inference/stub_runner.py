"""A runner without a process, for tests of the code around runners: it records the frames that it receives."""

from dataclasses import dataclass, field

from inference.dispatch.runner_launcher import OnExit, OnFrame, Runner
from inference.engine.protocol.frames import Cancel, Emission, Ended, Frame, FromRunner, Ready, Step, Submit

READY = Ready(model_name="stub", context_size=1024, trained_context=2048, gpu_layers=0, load_ms=10.0, warmup_ms=1.0)


@dataclass
class StubRunner:
    pid: int = 4242
    sent: list[Frame] = field(default_factory=list)
    killed: int = 0
    stopped: int = 0
    stop_secs: float = 0.0  # that it was given

    def start(self) -> Ready:
        return READY

    def send(self, frame: Frame) -> None:
        self.sent.append(frame)

    def stop(self, timeout_secs: float) -> None:
        self.stopped += 1
        self.stop_secs = timeout_secs

    def kill(self) -> None:
        self.killed += 1

    @property
    def submissions(self) -> list[Submit]:
        return [frame for frame in self.sent if isinstance(frame, Submit)]

    @property
    def cancelled(self) -> list[str]:
        return [frame.sequence_id for frame in self.sent if isinstance(frame, Cancel)]


def make_stub(on_frame: OnFrame, on_exit: OnExit) -> Runner:
    return StubRunner()


def step(*emissions: tuple[str, int, str]) -> FromRunner:
    """One step's tokens as (sequence id, index, text)."""
    return Step(
        emissions=[Emission(sequence, index, ord(text[0]) if text else 0, text) for sequence, index, text in emissions],
        n_prefill=0,
        n_decode=len(emissions),
        step_ms=1.0,
    )


def ended(sequence_id: str, reason: str = "stop", *, text: str = "", n_kept: int = 0) -> Ended:
    return Ended(sequence_id=sequence_id, reason=reason, text=text, n_kept=n_kept, prefill_ms=5.0, decode_ms=7.0)
