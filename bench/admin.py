"""Times and queries of the operators' pages and of the API's search over a large database: `make bench-admin`.

Runs on SQLite, and on PostgreSQL below tools/with_postgres.py. Pages are called in this process: the figures are those
of Django and the database, without a network.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

from tests import private_environment

private_environment.enter()

import django  # noqa: E402  the settings read the environment made above

django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from django.db.backends.utils import CursorWrapper  # noqa: E402
from django.test import Client  # noqa: E402
from django.utils import timezone  # noqa: E402

from bench.admin_data import MISSING_WORD, RARE_WORD, WORDS, fill  # noqa: E402
from chat.access.owners import user_key  # noqa: E402
from chat.models import Conversation  # noqa: E402
from chat.services.rollups import advancing  # noqa: E402

AIM_MS = 300.0
N_USERS = 40
N_ROUNDS = 10
MOST_SECS = 15.0  # of all rounds of one page

PAGES = {
    "front page, 24 hours": "/admin/",
    "front page, 1 year": "/admin/?period=year",
    "conversations": "/admin/chat/conversation/",
    "conversations, page 20": "/admin/chat/conversation/?p=20",
    "conversations of an owner": "/admin/chat/conversation/?owner={owner}",
    "conversations with a failure": "/admin/chat/conversation/?status=failed",
    "conversations on the GPU": "/admin/chat/conversation/?device=gpu",
    "conversations, frequent word": f"/admin/chat/conversation/?q={WORDS[0]}",
    "conversations, rare word": f"/admin/chat/conversation/?q={RARE_WORD}",
    "conversations, no hit": f"/admin/chat/conversation/?q={MISSING_WORD}",
    "a conversation": "/admin/chat/conversation/{conversation}/change/",
    "messages": "/admin/chat/message/",
    "messages, page 20": "/admin/chat/message/?p=20",
    "messages, answers": "/admin/chat/message/?role__exact=assistant",
    "messages, failed": "/admin/chat/message/?status=failed",
    "messages, rare word": f"/admin/chat/message/?q={RARE_WORD}",
    "messages, no hit": f"/admin/chat/message/?q={MISSING_WORD}",
    "retrievals": "/admin/chat/retrieval/",
    "retrievals without a hit": "/admin/chat/retrieval/?outcome=empty",
    "retrievals, labelled": "/admin/chat/retrieval/?outcome=cited",
    "generations": "/admin/inference/generation/",
    "generations, running": "/admin/inference/generation/?status__exact=running",
    "generations, failed": "/admin/inference/generation/?status__exact=failed",
    "generations, page 20": "/admin/inference/generation/?p=20",
    "users": "/admin/auth/user/",
    "API, conversations": "/api/conversations/",
    "API, frequent word": f"/api/conversations/?search={WORDS[0]}",
    "API, rare word": f"/api/conversations/?search={RARE_WORD}",
    "API, no hit": f"/api/conversations/?search={MISSING_WORD}",
}


@dataclass(frozen=True)
class PageFigures:
    """Wall times of all rounds in order; CPU time is that of this process alone, without a PostgreSQL."""

    wall_ms: list[float]
    cpu_ms: float
    n_queries: int
    n_bytes: int

    @property
    def p95_ms(self) -> float:
        return self.wall_ms[max(0, round(0.95 * len(self.wall_ms)) - 1)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--only", default="", help="pages whose name contains this")
    options = parser.parse_args()
    call_command("migrate", verbosity=0)
    operator = User.objects.create_superuser("operator")
    users = [operator, *(User.objects.create_user(f"user{number}") for number in range(1, N_USERS))]
    fill(options.messages, [user_key(user.pk) for user in users])
    began = time.perf_counter()
    while advancing.advance(timezone.now()):
        pass
    print(f"{connection.vendor}, {options.messages:,} messages, summed up in {time.perf_counter() - began:.0f} s")
    names = {"owner": user_key(operator.pk), "conversation": str(Conversation.objects.values_list("pk", flat=True)[0])}
    return measure(operator, names, only=options.only)


def measure(operator: User, names: Mapping[str, str], *, only: str) -> int:
    """Print the figures of each page; return 1 when one is over the aim."""
    client = Client(SERVER_NAME="localhost")
    client.force_login(operator)
    n_over = 0
    print(f"{'page':32} {'median':>8} {'p95':>8} {'CPU':>8} {'queries':>8} {'kB':>6}")
    for name, address in PAGES.items():
        if only not in name:
            continue
        page = figures_of(client, address.format(**names))
        n_over += page.p95_ms > AIM_MS
        median = statistics.median(page.wall_ms)
        print(
            f"{name:32} {median:5.0f} ms {page.p95_ms:5.0f} ms {page.cpu_ms:5.0f} ms "
            f"{page.n_queries:8} {page.n_bytes / 1000:6.0f}{' over the aim' if page.p95_ms > AIM_MS else ''}",
            flush=True,
        )
    print(f"aim: {AIM_MS:.0f} ms; over it: {n_over}")
    return int(n_over > 0)


def figures_of(client: Client, address: str) -> PageFigures:
    with counted_queries() as queries:
        response = client.get(address)
    if response.status_code != 200:
        raise SystemExit(f"{address} answered {response.status_code}")
    rounds: list[tuple[float, float]] = []
    while len(rounds) < N_ROUNDS and sum(wall_ms for wall_ms, _ in rounds) < MOST_SECS * 1000:
        began, cpu_began = time.perf_counter(), time.process_time()
        client.get(address)
        rounds.append(((time.perf_counter() - began) * 1000, (time.process_time() - cpu_began) * 1000))
    return PageFigures(
        wall_ms=sorted(wall_ms for wall_ms, _ in rounds),
        cpu_ms=statistics.median(cpu_ms for _, cpu_ms in rounds),
        n_queries=len(queries),
        n_bytes=len(response.content),
    )


@contextmanager
def counted_queries() -> Iterator[list[str]]:
    """Collect the statements of all threads: a page may be made in another one."""
    statements: list[str] = []
    execute = CursorWrapper._execute_with_wrappers  # type: ignore[attr-defined]

    def counted(cursor: CursorWrapper, sql: str, params: object, many: bool, executor: object) -> object:
        statements.append(sql)
        return execute(cursor, sql, params, many, executor)

    with patch.object(CursorWrapper, "_execute_with_wrappers", counted):
        yield statements


if __name__ == "__main__":
    sys.exit(main())
