"""Progress of a computing step as other threads see it, and the request to end it early."""

from typing import Protocol


class StepWatch(Protocol):
    """Shared by the thread that decodes and those that watch it; no method waits for the step."""

    @property
    def counts(self) -> bool:
        """True when ``n_done`` rises during a step, so that a step without progress is a hung one."""
        ...

    @property
    def n_done(self) -> int:
        """Parts of steps computed so far; the unit is the backend's."""
        ...

    def abort(self) -> None:
        """End the present or the next step: ``decode`` raises ``StepAborted``. Without effect where nothing counts."""
        ...

    def reset(self) -> None:
        """Withdraw the request to abort."""
        ...


class NoStepWatch:
    """A backend that shows nothing during a step and cannot end it."""

    counts = False
    n_done = 0

    def abort(self) -> None:
        """Do nothing: the step runs to its end."""

    def reset(self) -> None:
        """Do nothing: no abort is ever pending."""


class CountedStepWatch:
    """The watch of a backend in Python."""

    counts = True

    def __init__(self) -> None:
        self.n_done = 0
        self.is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True

    def reset(self) -> None:
        self.is_aborted = False
