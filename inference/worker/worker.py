"""The process-wide worker: puts dispatcher, token log, claims and their threads together, starts and stops them.

Celery's tasks ask for one unit of work each (``run_next``); this module knows no Celery.
"""

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

from django.conf import settings
from django.db import connection
from redis.exceptions import RedisError

from inference.dispatch import Dispatcher
from inference.dispatch.generation_state import ActiveGeneration
from inference.dispatch.runner_launcher import RunnerFactory, cpu_runner
from inference.dispatch.state_folder import StateFolder
from inference.errors import StoreUnavailable
from inference.models import Generation
from inference.monitoring import worker_report
from inference.monitoring.liveness import LivenessLock
from inference.queue.deadlines import Deadlines
from inference.queue.reaper import REAP_SECS, Reaper
from inference.runtime.database import UNAVAILABLE_ERRORS
from inference.runtime.redis_client import sync_client
from inference.runtime.repeating_thread import RepeatingThread
from inference.token_stream.entries import AnyEntry
from inference.token_stream.writer import LogWriter
from inference.worker.claim_pool import ClaimPool
from inference.worker.claim_runner import ClaimRunner
from inference.worker.control_channel import ControlChannel
from inference.worker.gpu_setup import gpu_parts
from inference.worker.heartbeat import Heartbeat
from inference.worker.purger import PURGE_SECS, Purger
from inference.worker.status_reporter import StatusReporter

log = logging.getLogger(__name__)

REPORT_SECS = 2.0
SETTLE_SECS = 5.0  # a released claim flushes its log and writes one row
THREAD_END_SECS = 3.0


class Worker:
    """Exists once per process. ``begin`` and ``stop`` are called once, ``run_next`` from any number of threads."""

    def __init__(self, make_runner: RunnerFactory = cpu_runner) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._redis = sync_client()
        self._closing = threading.Event()
        self._liveness_lock = LivenessLock(self.name)
        self._writer = LogWriter(self._redis, on_lost=lambda *claim: self.dispatcher.drop(*claim), holds=_is_claimed)
        gpu = gpu_parts()
        self.dispatcher = Dispatcher(make_runner, self._write, gpu=gpu, checkpoint_folder=_checkpoint_folder())
        deadlines = Deadlines()
        runner = ClaimRunner(self.dispatcher, self._writer, self._redis, self._closing, deadlines)
        self.claims = ClaimPool(self.name, runner, self._closing)
        self.reporter = StatusReporter(
            self.name,
            self.dispatcher,
            runner,
            gpu=gpu.device if gpu else None,
            n_gpu_commands=lambda: self.control.n_gpu_commands,
        )
        self.control = ControlChannel(self.dispatcher, self.reporter.report_once)
        heartbeat = Heartbeat(self.name, self.claims.active, self.dispatcher)
        reaper = Reaper(self.claims.n_claimable, holds=self.claims.holds, deadlines=deadlines)
        self._purger = Purger(self.dispatcher)
        self._reaping = RepeatingThread("reaper", REAP_SECS, reaper.run_once)
        self._purging = RepeatingThread("purge", PURGE_SECS, self._purger.run_once)
        self._others = [
            RepeatingThread("heartbeat", settings.HEARTBEAT_SECS, heartbeat.beat_once),
            RepeatingThread("control", 0.0, self.control.listen_once),
            RepeatingThread("report", REPORT_SECS, self.reporter.report_once),
        ]

    def begin(self) -> None:
        """Start all threads; returns before the model is loaded."""
        self._liveness_lock.acquire()
        self._writer.begin()
        self._purger.begin()
        self.dispatcher.begin()
        for thread in (self._reaping, self._purging, *self._others):
            thread.begin()
        log.info("worker started worker=%s", self.name)

    def run_next(self) -> bool:
        """Claim the next generation and run it to its end; False when none waits or the worker stops."""
        return self.claims.run_next()

    def stop(self, drain_secs: float) -> None:
        """Stop everything, in this order:

        1. Claims, the reaper and the purge: a wake-up message of the reaper would find no free worker here, and a purge
           would need the runner that step 5 stops.
        2. Active generations get ``drain_secs`` to end by themselves: an answer that is nearly complete is not moved.
        3. The remaining ones are released. Each thread flushes its token log and returns its row to the queue.
        4. The heartbeat, and not earlier: a row without one is taken over while step 3 still writes it.
        5. The runner, after every sequence has left it. The rest of ``drain_secs`` is its time to save KV states.
        6. The log writer: each step before may have left entries to write.
        7. The worker's report, so that ``/health`` does not show a worker that has gone.
        8. The liveness lock, last: once it is free, other workers take over every row that is still claimed here.
        """
        drained_by = time.monotonic() + drain_secs
        self._closing.set()
        self._reaping.end(THREAD_END_SECS)
        self._purging.end(THREAD_END_SECS)
        self.claims.wait_until_idle(drain_secs)
        self.dispatcher.release_all()
        if not self.claims.wait_until_idle(SETTLE_SECS):
            log.error("claims were not released, the reaper will take them over n_claims=%d", len(self.claims.active))
        for thread in self._others:
            thread.end(THREAD_END_SECS)
        self.dispatcher.end(THREAD_END_SECS, spare_secs=max(0.0, drained_by - time.monotonic()))
        self._writer.end(THREAD_END_SECS)
        with suppress(RedisError):  # the report expires by itself
            worker_report.withdraw()
        self._redis.close()
        self._liveness_lock.release()
        log.info("worker stopped worker=%s", self.name)

    def _write(self, entries: Sequence[tuple[ActiveGeneration, AnyEntry]]) -> None:
        self._writer.put([(live.generation_id, live.epoch, entry) for live, entry in entries])


def _checkpoint_folder() -> StateFolder | None:
    """Make the folder for states of prompts in progress; the worker works without one."""
    try:
        return StateFolder(settings.GEMMA_SHM_DIR)
    except OSError as error:
        log.warning("prompts are not saved while they are read folder=%s error=%s", settings.GEMMA_SHM_DIR, error)
        return None


def _is_claimed(generation_id: UUID, epoch: int) -> bool:
    """Return whether the row has no later claim, also after this one has ended it. Raises StoreUnavailable."""
    try:
        return Generation.objects.filter(pk=generation_id, claim_epoch=epoch).exists()
    except UNAVAILABLE_ERRORS as error:
        raise StoreUnavailable(f"The owner of generation {generation_id} cannot be looked up: {error}") from error
    finally:
        connection.close()  # the writer's thread asks too rarely to keep a connection
