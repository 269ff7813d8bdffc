"""Purge of the KV states of owners in all runners and in the folder of moving states. Knows no rows.

Every runner is sent the tags; a runner that starts later gets all tags so far before its first sequence, and refuses
states that were moving to it meanwhile.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from inference.dispatch.runner_slot import RunnerSlot
from inference.engine.protocol.frames import Purge, Purged


@dataclass(eq=False)
class PurgeOrder:
    """A purge and the event that its caller waits for."""

    tags: Sequence[str]
    _done: threading.Event = field(default_factory=threading.Event)

    def is_done_within(self, timeout_secs: float) -> bool:
        """Return whether no runner holds, or is writing, a state of these owners any more."""
        return self._done.wait(timeout_secs)

    def finish(self) -> None:
        self._done.set()


class CachePurges:
    """Purges under way, and all tags purged so far; called by one thread."""

    def __init__(self, slots: Sequence[RunnerSlot]) -> None:
        self._slots = slots
        self._tags: dict[str, None] = {}  # in order, each once
        self._numbers = count(1)
        self._awaited: dict[int, tuple[PurgeOrder, set[str]]] = {}

    def begin(self, order: PurgeOrder) -> None:
        """Send the tags to every runner; one that is being started takes part, since it may hold states already."""
        self._tags.update(dict.fromkeys(order.tags))
        number = next(self._numbers)
        devices = {slot.device for slot in self._slots if not slot.is_empty}
        if not devices:
            order.finish()
            return
        self._awaited[number] = (order, devices)
        for slot in self._slots:
            if slot.ready is not None:
                slot.send(Purge(number, list(order.tags)))

    def runner_started(self, slot: RunnerSlot) -> None:
        """Send all tags so far, before any other frame."""
        if not self._tags:
            return
        slot.send(Purge(0, list(self._tags)))
        for number, (order, devices) in self._awaited.items():
            if slot.device in devices:
                slot.send(Purge(number, list(order.tags)))

    def runner_exited(self, slot: RunnerSlot) -> None:
        """Settle the purges of the runner: its memory is freed, and the caller removes files that it was writing."""
        for number in list(self._awaited):
            self._settle(number, slot.device)

    def note_reply(self, slot: RunnerSlot, frame: Purged) -> None:
        if frame.is_complete:
            self._settle(frame.number, slot.device)
        else:
            # The order times out and is repeated by its caller, until the files are written.
            self._awaited.pop(frame.number, None)

    def _settle(self, number: int, device: str) -> None:
        order, devices = self._awaited.get(number, (None, set()))
        devices.discard(device)
        if order is not None and not devices:
            del self._awaited[number]
            order.finish()
