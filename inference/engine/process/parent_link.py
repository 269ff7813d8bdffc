"""The runner's side of its parent: frames over the socket pair, and an end together with it."""

import ctypes
import logging
import os
import queue
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection

from inference.engine.core.engine_loop import EngineLoop
from inference.engine.protocol.frames import FromRunner, ToRunner, decode_to_runner, encode

log = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int) -> None:
    """Be killed with the parent thread that started this process; the check covers one that ended before the call."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(0)


def sender(connection: Connection) -> Callable[[FromRunner], None]:
    """Return a function that sends a frame from any thread; without a parent the process ends."""
    sending = threading.Lock()  # the loop and the thread that reports its progress

    def send(frame: FromRunner) -> None:
        try:
            with sending:
                connection.send_bytes(encode(frame))
        except (BrokenPipeError, ConnectionResetError):
            os._exit(0)  # the parent is gone

    return send


def receive(connection: Connection, loop: EngineLoop) -> "queue.SimpleQueue[ToRunner]":
    """Read frames in a thread: a long decode never blocks the parent, and the parent's end is noticed at once.

    The slow part of a frame is done before it is in the queue, so that no step waits for it.
    """
    inbox: queue.SimpleQueue[ToRunner] = queue.SimpleQueue()

    def read() -> None:
        try:
            while True:
                frame = decode_to_runner(connection.recv_bytes())
                loop.prepare(frame)
                inbox.put(frame)
                loop.guard.frame_arrived(frame)
        except (EOFError, OSError):
            os._exit(0)  # the parent closed the pair or ended
        except Exception:
            # Without this thread the runner would take no request and no stop; its end is noticed.
            log.exception("frame not read, ending the runner")
            os._exit(1)

    threading.Thread(target=read, name="runner-inbox", daemon=True).start()
    return inbox
