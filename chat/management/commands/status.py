"""`manage.py status`: what the service is doing now, live in a terminal."""

import argparse
import shutil
import sys
import time

import msgspec
from django.core.management.base import BaseCommand

from chat.management.service_status import ServiceStatus, service_status
from chat.management.status_text import status_lines

EVERY_SECS = 1.0
# The screen of full-screen programs, so that the terminal is afterwards as it was.
ENTER, LEAVE, HOME, REST_OF_LINE, REST = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l", "\x1b[H", "\x1b[K", "\x1b[J"


class Command(BaseCommand):
    requires_system_checks = ()  # the running service has made them, and they import every view
    help = (
        "Shows model, GPU (who holds it, since when, who waits), queue, rates, cache and running answers; in a "
        "terminal live, until Ctrl-C. Exit status: 0 answers can be made, 1 not."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--once", action="store_true", help="show it once; the default when this is no terminal")
        parser.add_argument("--json", action="store_true", help="show it once, as JSON")

    def handle(self, *args: object, once: bool, json: bool, **options: object) -> None:
        if json or once or not sys.stdout.isatty():
            status = service_status()
            self.stdout.write(self.as_json(status) if json else self.text(status))
        else:
            status = self.watch()
        if status.problem:
            sys.exit(1)

    def as_json(self, status: ServiceStatus) -> str:
        return msgspec.json.format(msgspec.json.encode(status), indent=2).decode()

    def text(self, status: ServiceStatus, width: int | None = None) -> str:
        first, *lines = (line[:width] for line in status_lines(status))
        paint = self.style.ERROR if status.problem else self.style.SUCCESS
        return "\n".join((paint(first), *lines))

    def watch(self) -> ServiceStatus:
        """Redraw until Ctrl-C; return the last status."""
        sys.stdout.write(ENTER)
        status = service_status()
        try:
            while True:
                self.draw(status)
                time.sleep(EVERY_SECS)
                status = service_status()
        except KeyboardInterrupt:
            return status
        finally:
            sys.stdout.write(LEAVE)
            sys.stdout.flush()

    def draw(self, status: ServiceStatus) -> None:
        size = shutil.get_terminal_size()
        lines = [*self.text(status, size.columns).split("\n"), "", f"{status.time:%H:%M:%S}, Ctrl-C ends"]
        sys.stdout.write(HOME + "".join(f"{line}{REST_OF_LINE}\n" for line in lines[: size.lines - 1]) + REST)
        sys.stdout.flush()
