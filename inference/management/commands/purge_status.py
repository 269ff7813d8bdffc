"""`manage.py purge_status`: deletions whose KV states, token logs or file contents are still to be removed."""

import argparse
import time

from django.core.management.base import BaseCommand, CommandError

from inference.queue.purges import PurgeStatus, purge_status

POLL_SECS = 0.2


class Command(BaseCommand):
    help = (
        "Shows how many deletions (of conversations, memories, users) wait for the removal of KV states, token logs, "
        "and for the rewriting of database and append-only file. The worker does all of it within seconds."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--wait-secs", type=float, default=0.0, help="wait so long until nothing is left; status 1 if something is"
        )

    def handle(self, *args: object, wait_secs: float, **options: object) -> None:
        deadline = time.monotonic() + wait_secs
        while (status := purge_status()).n_pending and time.monotonic() < deadline:
            time.sleep(POLL_SECS)
        self.stdout.write(f"waiting for KV states:  {status.n_states}")
        self.stdout.write(f"waiting for token logs: {status.n_logs}")
        self.stdout.write(f"waiting for files to be rewritten: {status.n_storage}")
        self.stdout.write(f"done, within 30 days:   {status.n_done}")
        if status.oldest_pending:
            self.stdout.write(f"oldest that waits: {status.oldest_pending.isoformat(timespec='seconds')}")
        if wait_secs and status.n_pending:
            raise CommandError(f"{status.n_pending} deletions are not purged; is the worker running?")


def _as_text(status: PurgeStatus) -> str:
    lines = [
        f"waiting for KV states:  {status.n_states}",
        f"waiting for token logs: {status.n_logs}",
        f"waiting for files to be rewritten: {status.n_storage}",
        f"done, within 30 days:   {status.n_done}",
    ]
    if status.oldest_pending:
        lines.append(f"oldest that waits: {status.oldest_pending.isoformat(timespec='seconds')}")
    return "\n".join(lines)
