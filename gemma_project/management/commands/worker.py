"""`manage.py worker`: the Celery worker that owns the model's runner."""

import argparse
import os
import warnings

from celery.exceptions import SecurityWarning
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from setproctitle import setproctitle

from gemma_project.celery import app
from gemma_project.startup import NotReady, prepare_model, wait_for_migrations, wait_for_redis

QUEUES = ("gpu", "chat")
# How long llama.cpp's threads spin at a barrier before they sleep. OpenMP's own choice is milliseconds: when other
# work takes a core away, the rest burn theirs in wait (6 busy processes on 2 cores: 0.78 s a token, with this 0.27 s;
# alone on them: 30 ms either way). The runner inherits it.
OPENMP_SPINS = ("GOMP_SPINCOUNT", "10000")


class Command(BaseCommand):
    help = (
        "Runs generations: one worker, one model, GEMMA_PARALLEL answers at a time. `manage.py serve` starts this for "
        "you; started alone it needs Redis (REDIS_URL) and a migrated database. SIGTERM lets running answers go on for "
        "DRAIN_SECS and puts the rest back into the queue."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--wait-secs", type=float, default=60.0, help="how long to wait for Redis and the database (60)"
        )

    def handle(self, *args: object, wait_secs: float, **options: object) -> None:
        setproctitle("gemma-worker")
        os.environ.setdefault(*OPENMP_SPINS)
        try:
            prepare_model()
            wait_for_redis(wait_secs)
            wait_for_migrations(wait_secs)
        except NotReady as error:
            raise CommandError(str(error)) from error
        # Celery warns against root because of pickled messages; here only JSON is taken.
        warnings.filterwarnings("ignore", category=SecurityWarning)
        app.worker_main(worker_arguments())


def worker_arguments() -> list[str]:
    """Celery's command line. Nothing is asked of other workers: there are none, and asking costs a second."""
    return [
        "--quiet",
        "worker",
        "--pool=threads",
        f"--concurrency={settings.GEMMA_PARALLEL}",
        f"--queues={','.join(QUEUES)}",
        f"--loglevel={settings.LOG_LEVEL}",
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
        "--hostname=gemma@%h",
    ]
