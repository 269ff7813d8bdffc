"""Measurements of a generation over all its runners, and its reported prefill progress."""

from dataclasses import dataclass

from inference.engine.protocol.frames import ExportedSequence

PROGRESS_SECS = 0.25  # between two reports of prefill progress


@dataclass
class GenerationTiming:
    """Every ``_at`` is on the dispatcher's clock. ``n_cached``: tokens of the prompt that its first
    runner reused; None while no state of it has left that one."""

    added_at: float | None = None
    submitted_at: float | None = None
    first_token_at: float | None = None
    exported_at: float | None = None  # set while it moves, until its next token
    earlier_prefill_ms: float = 0.0  # in earlier runners
    earlier_decode_ms: float = 0.0
    gpu_wait_ms: float = 0.0
    gpu_load_ms: float = 0.0
    restore_ms: float = 0.0
    n_cached: int | None = None

    def note_submit(self, now: float) -> None:
        if self.submitted_at is None:
            self.submitted_at = now

    def note_token(self, now: float) -> None:
        if self.first_token_at is None:
            self.first_token_at = now
        if self.exported_at is not None:
            self.restore_ms += (now - self.exported_at) * 1000
            self.exported_at = None

    def note_grant(self, requested_at: float, now: float) -> None:
        self.gpu_wait_ms += self._overlap_ms(requested_at, now)

    def note_gpu_ready(self, granted_at: float, now: float) -> None:
        self.gpu_load_ms += self._overlap_ms(granted_at, now)

    def note_export(self, exported: ExportedSequence) -> None:
        self.earlier_prefill_ms += exported.prefill_ms
        self.earlier_decode_ms += exported.decode_ms
        # A sequence without a state may still find its prefix in the cache of the next runner.
        if exported.path:
            self.note_cached(exported.n_cached)

    def note_cached(self, n_cached: int) -> None:
        """A state of it left its runner: the next one reuses tokens that were computed for this generation."""
        if self.n_cached is None:
            self.n_cached = n_cached

    def report(self, *, prefill_ms: float, decode_ms: float) -> dict[str, float]:
        """Return all times in ms; the arguments are those of the last runner."""
        times = {"prefill": prefill_ms + self.earlier_prefill_ms, "decode": decode_ms + self.earlier_decode_ms}
        if self.added_at is not None and self.submitted_at is not None:
            times["load"] = (self.submitted_at - self.added_at) * 1000
            if self.first_token_at is not None:
                times["first_token"] = (self.first_token_at - self.submitted_at) * 1000
        if self.gpu_wait_ms or self.gpu_load_ms or self.restore_ms:
            times["load"] = times.get("load", 0.0) + self.gpu_load_ms
            times |= {"gpu_wait": self.gpu_wait_ms, "restore": self.restore_ms}
        return times

    def _overlap_ms(self, since: float, now: float) -> float:
        """Return the ms since ``since``, or since the generation was added if that was later."""
        return 1000 * (now - max(since, now if self.added_at is None else self.added_at))


@dataclass
class PrefillReport:
    """``n_computed``: known tokens that the runner has computed; ``reported_at``: of the last status."""

    n_computed: int = 0
    reported_at: float = 0.0

    def note(self, n_done: int, n_total: int, now: float) -> float | None:
        """Return the progress (0 to 1) when it is to be reported now."""
        self.n_computed = n_done
        progress = n_done / max(1, n_total)
        if now - self.reported_at < PROGRESS_SECS and progress < 1.0:
            return None
        self.reported_at = now
        return round(progress, 3)

    def note_deferred(self) -> None:
        """The next progress is reported at once."""
        self.reported_at = 0.0
