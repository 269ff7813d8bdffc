"""A process that requests the GPU and prints its lease events as JSON lines: `python -m tests.gpu.holder_process`.

It uses the service's own lease client and GPU lock, and releases when the lease is recalled or lost. With an argument
it first prints how many other processes held the lock.
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

from inference.gpu.device.lock import gpu_lock  # noqa: E402
from inference.gpu.device.port import SimulatedGpu  # noqa: E402
from inference.gpu.lease.factory import WorkerLeaseClient  # noqa: E402
from inference.gpu.lease.port import Lease, LeaseEvent, LeaseGranted, LeaseLost, LeaseRecalled  # noqa: E402


def say(event: LeaseEvent, **more: object) -> None:
    lease = getattr(event, "lease", None)
    report = {"event": type(event).__name__, "epoch": lease.epoch if lease else None}
    print(json.dumps(report | more), flush=True)  # noqa: T201  what the test reads


def main() -> None:
    events: queue.SimpleQueue[LeaseEvent] = queue.SimpleQueue()
    lease_client = WorkerLeaseClient(events.put)
    lease_client.begin()
    priority = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    lease_client.request(priority=priority, session_ids=frozenset())
    lease: Lease | None = None
    lock = None
    while True:
        event = events.get()
        if isinstance(event, LeaseGranted):
            lease = event.lease
            lock = gpu_lock(SimulatedGpu.uuid, Path(settings.GEMMA_SHM_DIR))
            say(event, has_lock=lock is not None)
        elif isinstance(event, LeaseLost | LeaseRecalled) and lease is not None:
            say(event)
            if lock is not None:
                lock.close()
            lease_client.release(lease, {})
            lease = None
        else:
            say(event)


if __name__ == "__main__":
    main()
