"""A state and the table of its legal transitions. Knows no particular states."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Generic, TypeVar

State = TypeVar("State", bound=StrEnum)


class IllegalTransition(RuntimeError):
    """A transition that the table does not list; the message names the source, the target and the legal targets."""


class StateMachine(Generic[State]):
    """The present state; ``move`` is the only way to change it."""

    def __init__(self, initial: State, transitions: Mapping[State, tuple[State, ...]]) -> None:
        self.now = initial
        self.since = 0.0  # on the clock of the caller of ``move``
        self._transitions = transitions

    def move(self, to: State, at: float) -> None:
        """Raises IllegalTransition."""
        if to not in self._transitions[self.now]:
            allowed = " or ".join(self._transitions[self.now])
            raise IllegalTransition(f"expected a transition from {self.now} to {allowed}, got {to}")
        self.now, self.since = to, at
