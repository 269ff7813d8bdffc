"""A process that wants the card and says what it hears, a JSON line each: `python -m tests.gpu.holder_process`.

It uses the service's own keeper, the lock of the card, and releases when it is asked to or has lost it. What becomes of
it is the test's affair. With an argument it first says how many others it saw holding the lock.
"""

import json
import os
import queue
import sys
from pathlib import Path

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "gemma_project.settings"
django.setup()

from django.conf import settings  # noqa: E402

from inference.gpu.device.card import SimulatedCard  # noqa: E402
from inference.gpu.device.lock import gpu_lock  # noqa: E402
from inference.gpu.lease.factory import WorkerKeeper  # noqa: E402
from inference.gpu.lease.port import Lease, LeaseEvent, LeaseGranted, LeaseLost, LeaseWanted  # noqa: E402


def say(event: LeaseEvent, **more: object) -> None:
    lease = getattr(event, "lease", None)
    told = {"event": type(event).__name__, "epoch": lease.epoch if lease else None}
    print(json.dumps(told | more), flush=True)  # noqa: T201  what the test reads


def main() -> None:
    events: queue.SimpleQueue[LeaseEvent] = queue.SimpleQueue()
    keeper = WorkerKeeper(events.put)
    keeper.begin()
    priority = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    keeper.want(priority=priority, session_ids=frozenset())
    lease: Lease | None = None
    lock = None
    while True:
        event = events.get()
        if isinstance(event, LeaseGranted):
            lease = event.lease
            lock = gpu_lock(SimulatedCard.uuid, Path(settings.GEMMA_SHM_DIR))
            say(event, has_lock=lock is not None)
        elif isinstance(event, LeaseLost | LeaseWanted) and lease is not None:
            say(event)
            if lock is not None:
                lock.close()
            keeper.release(lease, {})
            lease = None
        else:
            say(event)


if __name__ == "__main__":
    main()
