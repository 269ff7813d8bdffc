"""`manage.py web`: HTTP and WebSockets, by Daphne in this process."""

import argparse
import asyncio
import gc
import logging
import resource
import signal
import socket
import threading

from compat.daphne_http import AdoptingServer  # isort: skip  first: it installs Twisted's reactor
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.urls import get_resolver
from setproctitle import setproctitle
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from chat.api.middleware.json_errors import largest_body, server_error_body
from chat.rag.retrieval import local
from chat.rag.vectors import backfill
from chat.recall import vectors as message_vectors
from chat.services.accounts import bulk_deletion, retention
from chat.services.rollups import advancing
from chat.streaming import events
from chat.text_index import filling
from gemma_project.allocator import return_freed_memory
from gemma_project.asgi import application
from gemma_project.startup import NotReady, check_callers, migrate, prepare_model, wait_for_migrations
from gemma_project.supervisor.errors import AddressInUse
from gemma_project.supervisor.listener import open_listener
from inference.config.tokenizer import count_tokens
from inference.errors import ModelUnavailable
from inference.gpu.coordinator.watcher import watch_loop
from inference.gpu.lease.factory import reap_loop
from inference.queue.reaper import REAP_SECS, RowReaper
from inference.runtime.repeating_thread import RepeatingThread

log = logging.getLogger(__name__)

# A legal chat frame is a request body plus the words around it.
FRAME_OVERHEAD_BYTES = 1024
APPLICATION_CLOSE_SECS = 5
PING_SECS = 20
PING_TIMEOUT_SECS = 30
MAX_FILES = 65_536  # open at once, where the system's hard limit allows it
RESERVED_FILES = 256  # for databases, Redis, model files and logs; the rest is for connections
TELL_READERS_SECS = 1.1  # less than the supervisor grants, more than the longest silence of a stream


class Command(BaseCommand):
    help = (
        "Serves the API, the streams and the admin on GEMMA_HOST:GEMMA_PORT. `manage.py serve` starts this for you; "
        "started alone it needs Redis (REDIS_URL), the database, and a `manage.py worker` to answer chats."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--migrate", action="store_true", dest="migrate_first", help="bring the tables up to date first"
        )
        parser.add_argument("--listen-fd", type=int, help="serve on this inherited listening socket")
        parser.add_argument("--wait-secs", type=float, default=60.0, help="how long to wait for the database (60)")

    def handle(
        self, *args: object, migrate_first: bool, listen_fd: int | None, wait_secs: float, **options: object
    ) -> None:
        return_freed_memory()
        setproctitle(f"gemma-web {settings.GEMMA_HOST}:{settings.GEMMA_PORT}")
        try:
            listener = _inherited(listen_fd) if listen_fd else open_listener(settings.GEMMA_HOST, settings.GEMMA_PORT)
            prepare_tables(migrate_first=migrate_first, wait_secs=wait_secs)
            prepare_model()
        except (NotReady, AddressInUse) as error:
            raise CommandError(str(error)) from error
        # Twisted takes over SIGTERM, SIGINT and SIGHUP; without a handler the last would end us rudely.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        watching = watch_loop() or reap_loop()
        if watching is not None:  # also without a worker: a lease of one that died ends
            watching.begin()
        RepeatingThread("deadlines", REAP_SECS, RowReaper().run_once).begin()
        RepeatingThread("retention", retention.INTERVAL_SECS, retention.delete_all_outdated).begin()
        RepeatingThread("rollups", advancing.INTERVAL_SECS, advancing.advance_all).begin()
        RepeatingThread("deletions", bulk_deletion.INTERVAL_SECS, bulk_deletion.delete_all_requested).begin()
        RepeatingThread("text index", filling.INTERVAL_SECS, filling.fill_all).begin()
        threading.Thread(target=warm_up, name="warm up", daemon=True).start()
        backfill.start()  # its work, and that of the next line, may be cut off at any time
        message_vectors.start()
        build_server(listener).run()


def prepare_tables(*, migrate_first: bool, wait_secs: float) -> None:
    if migrate_first:
        migrate()
    else:
        wait_for_migrations(wait_secs)
    check_callers()


def warm_up() -> None:
    """Load the views' modules, the vocabulary and the memories, for which the first request would wait otherwise."""
    get_resolver().url_patterns  # noqa: B018  loads them
    try:
        count_tokens("Hello")
    except ModelUnavailable as error:
        log.warning("vocabulary not available yet error=%s", error)
    local.warm_up()
    message_vectors.warm_up()
    # These objects are never garbage: each full collection would look at 800,000 of them, half a second in which
    # nobody is served.
    gc.collect()
    gc.freeze()


def build_server(listener: socket.socket) -> AdoptingServer:
    """Daphne with its limits, on a listening socket that it takes over.

    ``http_timeout`` is left unset: it would end long streams.
    """
    message_bytes = settings.REQUEST_MAX_BYTES + FRAME_OVERHEAD_BYTES
    server = AdoptingServer(
        application,
        listener=listener,
        largest_body=largest_body,
        error_body=server_error_body,
        half_close_secs=settings.STREAM_GRACE_SECS,
        max_connections=raise_file_limit() - RESERVED_FILES,
        server_name="",
        ping_interval=PING_SECS,
        ping_timeout=PING_TIMEOUT_SECS,
        websocket_max_message_size=message_bytes,
        websocket_max_frame_size=message_bytes,
        application_close_timeout=APPLICATION_CLOSE_SECS,
        verbosity=1,
    )
    # Daphne drops its connections at the same event; a line written before the process ends still arrives.
    reactor.addSystemEventTrigger(
        "before", "shutdown", lambda: Deferred.fromFuture(asyncio.ensure_future(events.close_all(TELL_READERS_SECS)))
    )
    return server


def raise_file_limit() -> int:
    """Raise the number of files that this process may open as far as the system allows, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    n_files = max(soft, most)
    if n_files != soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (n_files, hard))
        log.info("open files limit=%d before=%d", n_files, soft)
    return n_files


def _inherited(listen_fd: int) -> socket.socket:
    try:
        return socket.socket(fileno=listen_fd)
    except OSError as error:
        raise CommandError(f"--listen-fd {listen_fd} is not a socket ({error})") from error
