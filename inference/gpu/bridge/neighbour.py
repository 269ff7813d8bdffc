"""Interface between a bridge and its neighbour, the program that cannot be changed."""

from typing import Protocol


class NeighbourError(Exception):
    """The program did not leave or come back; the text names the reason, for the log."""


class Neighbour(Protocol):
    """A program that uses the GPU. No call may take much longer than its timeouts."""

    name: str
    watch_secs: float  # between two looks while the GPU is lent

    def is_off(self) -> bool:
        """Return whether the program holds no memory of the GPU. Raises NeighbourError when that is not known."""

    def leave(self) -> None:
        """Make the program leave, which may take longer than this call. Raises NeighbourError."""

    def come_back(self) -> None:
        """Let the program use the GPU again. Raises NeighbourError."""

    def interrupt(self) -> None:
        """End a call that is under way in another thread, if it may take long."""

    def needs_resume(self) -> bool:
        """Return whether an earlier bridge has made it leave, and has died before it could let it come back."""
