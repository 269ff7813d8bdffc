"""Background responses whose processes are killed: they end, and their events are read from any number on."""

from uuid import UUID

import httpx
import pytest
import redis

from inference.runtime.redis_client import log_key
from tests.api.responses.calling import Json, count, created, deltas_of, events_in, resumed, retrieved
from tests.faults.breaking import FaultStack
from tests.faults.conftest import Seen
from tests.faults.reading import numbers
from tests.live_stack import wait_until

ENDED_SECS = 30.0
N_NUMBERS = 120


def first_events(client: httpx.Client, response_id: str, n_events: int) -> list[Json]:
    with client.stream("GET", f"/v1/responses/{response_id}?stream=true") as stream:
        return [event for event, _ in zip(events_in(stream), range(n_events), strict=False)]


def delete_log(stack: FaultStack, response_id: str) -> int:
    """Returns how many logs there were."""
    with redis.Redis(unix_socket_path=f"{stack.data_dir}/run/valkey.sock") as client:
        return int(client.delete(log_key(UUID(response_id.removeprefix("resp_")))))


@pytest.mark.fault(
    "23",
    "kill -9 of runner, worker, broker and web within a background response; afterwards its token log is lost",
    "it completes, and the stream after any event is exactly the rest, with and without the log",
    repeated=True,
)
def test_a_background_response(stack: FaultStack, seen: Seen) -> None:
    with httpx.Client(base_url=stack.url, timeout=60) as client:
        response_id = created(client, count(N_NUMBERS, delay_ms=20, background=True))["id"]
        before = first_events(client, response_id, 40)
        # All at once: a worker whose runner died is about to have another.
        titles = ("gemma-runner cpu", "gemma-worker", "gemma-valkey", "gemma-web")
        for process in [stack.process(title) for title in titles]:
            process.kill()
        stack.n_deaths += 1
        seen["restart_secs"] = round(stack.wait_until_healthy(), 1)
        rest = resumed(client, response_id, before[-1]["sequence_number"])
        is_over = lambda: retrieved(client, response_id)["status"] == "completed"  # noqa: E731
        wait_until(is_over, timeout_secs=ENDED_SECS, what="the response is complete")
        events = before + rest
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert deltas_of(events) == numbers(N_NUMBERS)
        assert events[-1]["response"] == retrieved(client, response_id)
        for _source in ("log", "row"):
            for number in (None, 0, 2, 3, 39, 40, 200, len(events) - 2, len(events) - 1):
                assert resumed(client, response_id, number) == events[0 if number is None else number + 1 :]
            n_deleted = delete_log(stack, response_id)
    assert n_deleted == 0, "it was read from the row"
    seen["attempts"] = stack.row(str(UUID(response_id.removeprefix("resp_")))).attempt
