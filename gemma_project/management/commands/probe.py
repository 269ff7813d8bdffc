"""`manage.py probe`: whether the running service really answers, shown by one token and its health page."""

import argparse
import asyncio
import contextlib
import time
from urllib.parse import urlsplit

import httpx
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.http.request import split_domain_port, validate_host
from setproctitle import setproctitle

from inference.config.tokenizer import get_tokenizer
from inference.engine.params import SamplingParams, SequenceParams
from inference.errors import AlreadyEnded, InferenceError
from inference.models import Generation, Priority
from inference.monitoring.worker_report import WorkerReport, last_report
from inference.queue import generations
from inference.runtime.http_calls import call, open_client
from inference.token_stream.entries import EndEntry, TokenEntry
from inference.token_stream.reader import TokenLogReader

PROMPT = "Hello"
OWNER = "probe"
POLL_SECS = 0.2


class Command(BaseCommand):
    help = (
        "Asks the running service for one token and prints how long it took; exit status 0 only when one came. "
        "With --url the web process must answer /health with 200, too."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--url", help="address of the web process, such as http://127.0.0.1:8001")
        parser.add_argument("--timeout-secs", type=float, default=30.0, help="give up after this time (30)")

    def handle(self, *args: object, url: str | None, timeout_secs: float, **options: object) -> None:
        setproctitle("gemma-probe")
        started = time.monotonic()
        try:
            generation = ask_for_one_token(timeout_secs)
            error = asyncio.run(_first_outcome(generation, timeout_secs))
            with contextlib.suppress(AlreadyEnded):
                generations.request_cancel(generation_id=generation.pk)
        except InferenceError as refusal:
            raise CommandError(f"no token: {refusal}") from refusal
        if error is not None:
            raise CommandError(f"no token: {error}")
        token_secs = time.monotonic() - started
        if url:
            wait_for_health(url, started + timeout_secs)
        self.stdout.write(f"first token after {token_secs:.1f} s")


def ask_for_one_token(timeout_secs: float) -> Generation:
    """Queue a generation of one token, whose row is deleted after its end."""
    tokenizer = get_tokenizer()
    return generations.create(
        owner=OWNER,
        params=SequenceParams(sampling=SamplingParams(seed=0, temperature=0.0), max_tokens=1, ignore_eos=True),
        priority=Priority.INTERACTIVE,
        prompt_ids=tokenizer.encode(tokenizer.bos_text + PROMPT, special=True),
        timeout_secs=timeout_secs,
        ephemeral=True,
        # A full queue must not keep the service from starting to work on it.
        capped=False,
    )


async def _first_outcome(generation: Generation, timeout_secs: float) -> str | None:
    """Return None when a token came, for us or for another generation, else the reason."""
    ours, theirs = asyncio.ensure_future(_own_token(generation)), asyncio.ensure_future(_token_of_others())
    try:
        done, _ = await asyncio.wait({ours, theirs}, timeout=timeout_secs, return_when=asyncio.FIRST_COMPLETED)
        if ours in done:
            return ours.result()
        return None if theirs in done else f"none within {timeout_secs:g} s"
    finally:
        ours.cancel()
        theirs.cancel()


async def _own_token(generation: Generation) -> str | None:
    async for entry in TokenLogReader().follow(generation.id, after=0):
        if isinstance(entry, TokenEntry):
            return None
        if isinstance(entry, EndEntry):
            await generation.arefresh_from_db()
            return f"{generation.error_code}: {generation.error_message}"
    return "the token log ended"


async def _token_of_others() -> None:
    """Return once the worker has produced tokens for any generation.

    After a restart unfinished answers continue first and may fill every slot for a long time; their tokens prove that
    the worker runs.
    """
    before: WorkerReport | None = None
    while True:
        # A dead worker's last report does not change, so only a count that grows counts.
        report = await asyncio.to_thread(last_report)
        if report and before and report.pid == before.pid and report.n_tokens > before.n_tokens:
            return
        before = report
        await asyncio.sleep(POLL_SECS)


def served_host(url: str) -> str:
    """Return a Host header that the service takes: behind a proxy ALLOWED_HOSTS may have the public name alone."""
    address = urlsplit(url).netloc
    hosts = settings.ALLOWED_HOSTS
    return address if not hosts or validate_host(split_domain_port(address)[0], hosts) else hosts[0].removeprefix(".")


def wait_for_health(url: str, deadline: float) -> None:
    """The worker reports every two seconds, so the first answers may still be 503."""
    answer = "no answer"
    while time.monotonic() < deadline:
        try:
            with open_client() as client:
                response = call(client, "GET", f"{url}/health", secs=5.0, headers={"Host": served_host(url)})
        except httpx.HTTPError as error:
            answer = str(error)
        else:
            if response.status_code == httpx.codes.OK:
                return
            answer = f"status {response.status_code}: {response.text[:500]}"
        time.sleep(POLL_SECS)
    raise CommandError(f"{url}/health is not healthy: {answer}")
