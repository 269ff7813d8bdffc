"""The process-wide worker: placement, log writer and the threads around them, started and stopped in order.

Celery's tasks ask it for one unit of work each (``run_next``); it knows no Celery.
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
from django.db import connection, connections
from redis.client import PubSub
from redis.exceptions import RedisError

from inference.config.from_settings import requested_config
from inference.config.memory_budget import kv_bytes
from inference.dispatch import Dispatcher
from inference.dispatch.generation_state import ActiveGeneration
from inference.dispatch.runner_launcher import RunnerFactory, cpu_runner
from inference.engine.config import MEBIBYTE, BackendKind
from inference.errors import GpuUnavailable, StoreUnavailable
from inference.gpu.device.port import GpuDevice
from inference.models import Generation, Priority
from inference.monitoring import worker_report
from inference.monitoring.liveness import LivenessLock
from inference.queue.deadlines import Deadlines
from inference.queue.reaper import REAP_SECS, Reaper
from inference.runtime import log_context
from inference.runtime.database import UNAVAILABLE_ERRORS, retry_transaction
from inference.runtime.redis_client import CONTROL_CHANNEL, sync_client
from inference.runtime.repeating_thread import RepeatingThread
from inference.token_stream.entries import AnyEntry
from inference.token_stream.writer import LogWriter
from inference.worker.claim_runner import ClaimRunner
from inference.worker.gpu_commands import GPU_COMMAND_CHANNEL, obey
from inference.worker.gpu_setup import gpu_parts
from inference.worker.purger import PURGE_SECS, Purger

log = logging.getLogger(__name__)

REPORT_SECS = 2.0
LISTEN_SECS = 0.5
WATCHED_SECS = 30.0  # after a command reports come with every look at the channels
SETTLE_SECS = 5.0  # a task that was let go flushes, writes one row and returns
THREAD_END_SECS = 3.0


class Worker:
    """One per process. ``begin`` and ``stop`` are called once, ``run_next`` from any number of threads."""

    def __init__(self, make_runner: RunnerFactory = cpu_runner) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._redis = sync_client()
        self._stopping = threading.Event()
        self._taken: list[UUID] = []  # claimed here and not settled; twice what was claimed again meanwhile
        self._writer = LogWriter(self._redis, on_lost=lambda *claim: self.dispatcher.drop(*claim), holds=_is_held)
        self._gpu = gpu_parts()
        self.dispatcher = Dispatcher(make_runner, self._write, gpu=self._gpu)
        self._alive = LivenessLock(self.name)
        deadlines = Deadlines()
        self._claims = ClaimRunner(self.dispatcher, self._writer, self._redis, self._stopping, deadlines)
        self._reaper = Reaper(self._free_slots, holds=self._holds, deadlines=deadlines)
        self._purger = Purger(self.dispatcher)
        self._pubsub: PubSub | None = None
        self._n_card_commands = 0
        self._watched_until = 0.0
        self._reported = (time.monotonic(), 0)
        self._sweeping = RepeatingThread("sweep", REAP_SECS, self._reaper.run_once)
        self._purging = RepeatingThread("purge", PURGE_SECS, self._purger.run_once)
        self._beating = RepeatingThread("heartbeat", settings.HEARTBEAT_SECS, self.beat_once)
        self._listening = RepeatingThread("control", 0.0, self.listen_once)
        self._reporting = RepeatingThread("report", REPORT_SECS, self.report_once)

    def begin(self) -> None:
        """Start everything; returns before the model is loaded."""
        self._alive.begin()
        self._writer.begin()
        self._purger.begin()
        self.dispatcher.begin()
        for loop in (self._beating, self._sweeping, self._purging, self._listening, self._reporting):
            loop.begin()
        log.info("worker %s begins", self.name)

    def run_next(self) -> bool:
        """Claim the next generation and run it to its end; False when there was none or the worker stops.

        Batch work runs in threads of its own: a question finds a free one here, and the engine sets batch work aside
        for it where there is no place.
        """
        has_run = False
        while (row := self._claim()) is not None:
            has_run = True
            if row.priority == Priority.INTERACTIVE:
                self._run(row)
                break
            self._run_aside(row)
        self._fill_places()
        return has_run

    def _claim(self) -> Generation | None:
        """The next row; while all places are taken, the next that somebody waits for."""
        if self._stopping.is_set():
            return None
        rows = Generation.objects.all() if self._n_free > 0 else Generation.objects.interactive()
        row = retry_transaction(lambda: rows.claim_next(worker=self.name))
        if row is not None:
            self._taken.append(row.pk)
        return row

    def _fill_places(self) -> None:
        """With batch work whose ring came while there was no place."""
        while self._n_free > 0 and not self._stopping.is_set():
            row = retry_transaction(lambda: Generation.objects.batch().claim_next(worker=self.name))
            if row is None:
                return
            self._taken.append(row.pk)
            self._run_aside(row)

    def _run_aside(self, row: Generation) -> None:
        threading.Thread(target=self._run_alone, args=[row], name=f"batch {row.pk}", daemon=True).start()

    def _run_alone(self, row: Generation) -> None:
        try:
            self._run(row)
            self._fill_places()
        finally:
            connections.close_all()  # Celery closes those of its own threads only

    def _run(self, row: Generation) -> None:
        # The ordinary case is one line per answer that the row says as well; that work moved is worth telling.
        level = logging.DEBUG if row.claim_epoch == 1 else logging.INFO
        with log_context.bound_to(row):
            log.log(level, "claimed generation=%s attempt=%d epoch=%d", row.pk, row.attempt, row.claim_epoch)
            try:
                self._claims.run(row)
            finally:
                self._taken.remove(row.pk)

    def stop(self, drain_secs: float) -> None:
        """Stop everything, in this order:

        1. No new claims, no purge, and no sweep: whatever it rang for, this worker would not answer.
        2. What runs gets ``drain_secs`` to end by itself.
        3. The rest is let go; each task writes out its log and gives its row back to the queue.
        4. The heartbeat, not earlier: rows without one would be taken over while they are being written.
        5. The runner, which nobody needs now. What is left of ``drain_secs`` it may use to save what it computed.
        6. The log writer: every step before may have left entries to write.
        7. The proof of life last: without it every row still claimed here is another worker's.
        """
        self._stopping.set()
        drained_by = time.monotonic() + drain_secs
        self._sweeping.end(THREAD_END_SECS)
        self._purging.end(THREAD_END_SECS)
        self._wait_until_idle(drain_secs)
        self.dispatcher.release_all()
        if not self._wait_until_idle(SETTLE_SECS):
            log.error("%d generations were not given back; a sweep will find them", len(self._claims.lives))
        for loop in (self._beating, self._listening, self._reporting):
            loop.end(THREAD_END_SECS)
        self.dispatcher.end(THREAD_END_SECS, spare_secs=max(0.0, drained_by - time.monotonic()))
        self._writer.end(THREAD_END_SECS)
        with suppress(RedisError):  # then it ends by itself
            worker_report.withdraw()
        self._redis.close()
        self._alive.end()
        log.info("worker %s has ended", self.name)

    def _wait_until_idle(self, timeout_secs: float) -> bool:
        deadline = time.monotonic() + timeout_secs
        while self._claims.lives and time.monotonic() < deadline:
            time.sleep(0.02)
        return not self._claims.lives

    @property
    def _n_free(self) -> int:
        return settings.GEMMA_PARALLEL - len(self._taken)

    def _free_slots(self) -> int:
        """How many rings could be answered at once. Batch work takes no place from those that somebody waits for."""
        if self._n_free > 0 or not Generation.objects.interactive().queued().exists():
            return self._n_free
        n_people = sum(live.priority == Priority.INTERACTIVE for live in list(self._claims.lives.values()))
        return settings.GEMMA_PARALLEL - n_people

    def _holds(self, generation_id: UUID, epoch: int) -> bool:
        live = self._claims.lives.get(generation_id)
        return live is not None and live.epoch == epoch

    def _write(self, entries: Sequence[tuple[ActiveGeneration, AnyEntry]]) -> None:
        self._writer.put([(live.generation_id, live.epoch, entry) for live, entry in entries])

    # ---- units of the threads ----

    def beat_once(self) -> None:
        """Move the heartbeat of what lives here, and learn what became of it elsewhere."""
        lives = dict(self._claims.lives)
        if not lives:
            return
        Generation.objects.beat(worker=self.name, generation_ids=list(lives))
        rows = Generation.objects.running().filter(worker=self.name, pk__in=list(lives))
        found = {pk: (epoch, cancel) for pk, epoch, cancel in rows.values_list("pk", "claim_epoch", "cancel_requested")}
        for generation_id, live in lives.items():
            epoch, cancel_requested = found.get(generation_id, (None, False))
            if epoch != live.epoch:
                self.dispatcher.drop(generation_id, live.epoch)
            elif cancel_requested:
                self.dispatcher.cancel(generation_id)

    def listen_once(self) -> None:
        """Wait a little for a cancel that need not wait for the heartbeat, or a word about the card."""
        try:
            if self._pubsub is None:
                pubsub = sync_client(reply_timeout_secs=5.0).pubsub(ignore_subscribe_messages=True)
                pubsub.subscribe(CONTROL_CHANNEL, GPU_COMMAND_CHANNEL)
                self._pubsub = pubsub
            message = self._pubsub.get_message(timeout=LISTEN_SECS)
        except RedisError:
            self._pubsub = None
            time.sleep(LISTEN_SECS)  # the loop around this one has no pause of its own
            raise
        if message is not None and message["channel"] == GPU_COMMAND_CHANNEL.encode():
            self._obey(message["data"])
        elif message is not None:
            self.dispatcher.cancel(UUID(message["data"].decode()))
        if time.monotonic() < self._watched_until:
            self.report_once()

    def _obey(self, command: bytes) -> None:
        """Whoever sent it waits for a report that shows what came of it."""
        self._n_card_commands += 1
        self._watched_until = time.monotonic() + WATCHED_SECS
        obey(self.dispatcher, command)

    def report_once(self) -> None:
        """Tell other processes how this one is."""
        worker_report.publish(self.report())

    def report(self) -> worker_report.WorkerReport:
        ready, placement = self.dispatcher.ready, self.dispatcher.describe()
        card = self._gpu.device if self._gpu else None
        now, n_tokens = time.monotonic(), self.dispatcher.n_tokens
        (then, n_before), self._reported = self._reported, (now, n_tokens)
        return worker_report.WorkerReport(
            pid=os.getpid(),
            name=self.name,
            model_name=ready.model_name if ready else "",
            context_size=ready.context_size if ready else 0,
            trained_context=ready.trained_context if ready else 0,
            kv_cache_mb=_kv_cache_mb() if ready else None,
            gpu_layers=ready.gpu_layers if ready else 0,
            model_loaded=ready is not None,
            runner_pid=self.dispatcher.runner_pid,
            active=len(self._claims.lives),
            n_tokens=n_tokens,
            tokens_per_second=round((n_tokens - n_before) / max(0.001, now - then), 1),
            mean_run_secs=self._claims.mean_run_secs,
            engine=self.dispatcher.meter.report(),
            model_on_gpu=self.dispatcher.device == "gpu",
            device=self.dispatcher.device,
            card=placement["card"],
            vram_used_mb=_vram_used_mb(card, self.dispatcher.gpu_pid) if card else None,
            vram_total_mb=card.total_mb if card else None,
            placement=placement,
            coordinator=self.dispatcher.describe_lease_client(),
            n_card_commands=self._n_card_commands,
        )


def _is_held(generation_id: UUID, epoch: int) -> bool:
    """Whether the row knows of no later claim. Ended by this one it is still this one's to tell."""
    try:
        return Generation.objects.filter(pk=generation_id, claim_epoch=epoch).exists()
    except UNAVAILABLE_ERRORS as error:
        raise StoreUnavailable(f"nobody can say whose it is: {error}") from error
    finally:
        connection.close()  # the thread that asks does so once in a blue moon


def _vram_used_mb(card: GpuDevice, pid: int | None) -> int | None:
    """By whomever; of a simulated card our runner's memory. None: its driver does not answer."""
    try:
        ours_mb = 0 if pid is None else card.vram_used_mb_of([pid])
        return max(ours_mb, card.total_mb - card.free_mb)
    except GpuUnavailable:
        return None


def _kv_cache_mb() -> float | None:
    if settings.GEMMA_BACKEND is BackendKind.FAKE:
        return None
    n_bytes = kv_bytes(requested_config())
    return n_bytes and round(n_bytes / MEBIBYTE, 1)
