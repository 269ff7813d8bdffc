"""Runner process, ``python -m inference.engine.process.runner <fd>``: one model on one device until Stop.

Configuration and frames arrive over the socket pair ``fd``. The process ends with its parent and ignores the signals
that are sent to the process group.
"""

import logging
import os
import queue
import signal
import sys
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from setproctitle import setproctitle

from inference.engine.backends.backend import Backend, Slice
from inference.engine.backends.fake_backend import FakeBackend
from inference.engine.backends.llama_backend import LlamaBackend
from inference.engine.config import BackendKind, Device, EngineConfig
from inference.engine.core.engine_loop import EngineLoop
from inference.engine.errors import BackendError, EngineError
from inference.engine.kv_cache.disk_store import open_disk_store
from inference.engine.kv_cache.fingerprint import state_fingerprint
from inference.engine.process.deadline import end_when_passed
from inference.engine.process.parent_link import die_with_parent, receive, sender
from inference.engine.process.progress_reporter import ProgressReporter
from inference.engine.protocol.frames import (
    Fatal,
    Ready,
    Start,
    Stop,
    ToRunner,
    decode_start,
)

log = logging.getLogger(__name__)

QUIET_SECS = 0.2  # without a frame before idle work starts
LONG_QUIET_SECS = 3.0  # before work of a second, for which a frame would have to wait


def main(fd: int) -> int:
    """Run until Stop; returns the exit status."""
    connection = Connection(fd)
    for number in (signal.SIGINT, signal.SIGTERM):
        # Ctrl-C and a service manager's stop reach the whole group; the parent decides whether answers finish first.
        signal.signal(number, signal.SIG_IGN)
    os.putenv("GGML_NO_BACKTRACE", "1")  # an abort would start a debugger for seconds
    start = decode_start(connection.recv_bytes())
    setproctitle(start.title)
    logging.basicConfig(level=logging.WARNING, format=f"{start.title}: %(message)s")
    die_with_parent(start.parent_pid)
    if start.deadline:
        end_when_passed(Path(start.deadline))
    send = sender(connection)
    try:
        backend, ready = _load(start)
    except EngineError as error:
        send(Fatal(error.code, str(error)))
        return 1
    fingerprint = _fingerprint(start.config)
    disk = open_disk_store(start.config, fingerprint)
    loop = EngineLoop(backend, start.config, send, disk, fingerprint)
    inbox = receive(connection, loop)
    send(ready)
    reporter = ProgressReporter(loop.guard.is_progressing, send, interval_secs=start.config.progress_secs)
    reporter.begin()
    stop = serve(loop, inbox)
    reporter.end()
    loop.close(stop.save_secs)
    backend.close()
    return 0


def serve(loop: EngineLoop, inbox: "queue.SimpleQueue[ToRunner]") -> Stop:
    """Handle all frames, then run one step, until ``Stop``; blocks only when nothing is left to compute."""
    is_busy = False
    while True:
        while not is_busy or not inbox.empty():
            frame = _next_frame(loop, inbox)
            if isinstance(frame, Stop):
                return frame
            loop.handle(frame)
            is_busy = True
        is_busy = loop.step()


def _next_frame(loop: EngineLoop, inbox: "queue.SimpleQueue[ToRunner]") -> ToRunner:
    """Wait for a frame; after ``QUIET_SECS`` idle work runs meanwhile, one unit at a time, after ``LONG_QUIET_SECS``
    the one that takes longest."""
    with suppress(queue.Empty):
        return inbox.get(timeout=QUIET_SECS)
    while inbox.empty() and loop.work_while_idle():
        pass
    loop.guard.begin_wait()
    if not loop.is_ready_for_grammars:
        with suppress(queue.Empty):
            return inbox.get(timeout=LONG_QUIET_SECS)
        loop.make_ready_for_grammars()
        loop.guard.begin_wait()
    return inbox.get()


def _fingerprint(config: EngineConfig) -> str:
    """Return the fingerprint of KV states; empty when the model file cannot be read, and then no state is shared."""
    try:
        return state_fingerprint(config)
    except OSError as error:
        log.warning("kv states not shared between runners error=%s", error)
        return ""


def open_backend(config: EngineConfig) -> Backend:
    """Load the configured backend; raises ``EngineError``."""
    n_slots = config.n_slots
    if config.backend is BackendKind.FAKE:
        batch_size = max(config.batch_size, config.parallel)
        return FakeBackend(
            n_cells=config.context_size, n_slots=n_slots, batch_size=batch_size, max_outputs=config.n_logit_rows
        )
    return LlamaBackend(config, n_slots=n_slots)


def _load(start: Start) -> tuple[Backend, Ready]:
    config = start.config
    began = time.monotonic()
    if config.device is Device.SIMULATED:
        time.sleep(config.load_delay_ms / 1000)
    backend = open_backend(config)
    loaded = time.monotonic()
    _warm_up(backend)
    ready = Ready(
        model_name=backend.vocabulary.model_name,
        context_size=backend.n_cells,
        trained_context=backend.vocabulary.trained_context,
        gpu_layers=config.layers_on_gpu,
        load_ms=(loaded - began) * 1000,
        warmup_ms=(time.monotonic() - loaded) * 1000,
    )
    return backend, ready


def _warm_up(backend: Backend) -> None:
    """Allocate buffers, page the weights in and scan the vocabulary (0.2 s for 262,144 tokens)."""
    if backend.decode([Slice(0, 0, [backend.vocabulary.bos or 0], 1)]) is None:
        raise BackendError("the empty KV cache has no room for one token")
    backend.remove(0)
    _ = backend.vocabulary.eog_tokens


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
