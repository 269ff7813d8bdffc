"""The neighbours' client library at the built-in coordinator: what it takes for a grant is one."""

from collections.abc import Callable, Iterator

import httpx
import pytest
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from inference.gpu.coordinator import api
from tests.neighbours.client_library import NeighbourClient
from tests.neighbours.coordinator import NeighbourCoordinator, Wire
from tests.neighbours.pause_manager import PauseManager

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(params=[False, True], ids=["v2", "v1"])
def client(wire: Wire, live_server: LiveServer, request: pytest.FixtureRequest) -> Iterator[NeighbourClient]:
    client = NeighbourClient(str(live_server.url))
    client.is_old = request.param
    yield client
    client.close()


def test_what_it_takes_for_a_grant_is_one(client: NeighbourClient, pause_manager: Callable[..., PauseManager]) -> None:
    manager = pause_manager(free_secs=0.3)
    client.acquire("s1")
    assert not manager.is_on_card
    assert client.owner() == "s1"
    client.release("s1")
    manager.wait_until(on_card=True)
    assert client.owner() == ""


def test_a_refusal_is_none(
    wire: Wire, live_server: LiveServer, pause_manager: Callable[..., PauseManager], settings: Settings
) -> None:
    settings.GPU_PAUSE_TIMEOUT = 0.5
    manager = pause_manager()
    manager.is_deaf = True
    for is_old in (False, True):
        client = NeighbourClient(str(live_server.url))
        client.is_old = is_old
        with pytest.raises(httpx.HTTPStatusError):
            client.acquire("s1")
        assert client.owner() == ""
        assert manager.is_on_card
        client.close()


def test_the_release_of_another_session_changes_nothing(client: NeighbourClient, wire: Wire) -> None:
    client.acquire("s1")
    client.release("s2")
    client.release("S1")
    assert client.owner() == "s1"
    api.reset(wire)


def test_it_finds_the_generation_of_a_coordinator(wire: Wire) -> None:
    for generation in ("v1", "v2"):
        coordinator = NeighbourCoordinator(wire, generation, pause_secs=0.2)
        coordinator.grant_to("theirs")
        client = NeighbourClient(coordinator.url)
        if generation == "v1":
            with pytest.raises(httpx.HTTPStatusError):
                client.acquire("s1")
        else:
            client.acquire("s1")  # a refusal with 200, which it takes for a grant: ours never sends one
        assert client.is_old is (generation == "v1")
        client.close()
        coordinator.stop()
