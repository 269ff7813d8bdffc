"""The bridge beside a server that speaks Ollama's API: it is off the GPU before anybody hears that it is."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from inference.gpu.bridge import bridge as bridge_module
from inference.gpu.bridge import ollama as ollama_module
from inference.gpu.bridge.bridge import Bridge
from inference.gpu.bridge.neighbour import NeighbourError
from inference.gpu.bridge.ollama import Ollama, url_of_environment
from inference.gpu.sdk.client import TenantClient
from inference.gpu.sdk.tenant import GpuTenant
from tests.neighbours.coordinator import NeighbourCoordinator, Wire
from tests.neighbours.lending import acquire, give_back, wait_for
from tests.neighbours.ollama import FakeModel, FakeOllama

pytestmark = pytest.mark.django_db(transaction=True)
START = Callable[..., Bridge]


@pytest.fixture(autouse=True)
def _short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ollama_module, "TIMEOUT_SECS", 0.5)
    monkeypatch.setattr(bridge_module, "RETRY_SECS", 0.3)
    monkeypatch.setattr(Ollama, "watch_secs", 0.2)


@pytest.fixture
def server() -> Iterator[FakeOllama]:
    server = FakeOllama(FakeModel("llama3:8b", is_loaded=True), FakeModel("embedder", for_embeddings=True))
    yield server
    server.stop()


@pytest.fixture
def start(wire: Wire, server: FakeOllama) -> Iterator[START]:
    """Starts a bridge; its main loop runs in a thread of the test."""
    ends: list[Callable[[], None]] = []

    def begin(*, pause_secs: float = 5.0, is_known: bool = True) -> Bridge:
        begun = threading.Event()
        made: list[tuple[Bridge, GpuTenant]] = []

        def run() -> None:
            bridge = Bridge(Ollama(server.url), pause_secs=pause_secs)
            client = TenantClient("http://127.0.0.1:9", "ollama")
            tenant = GpuTenant("ollama", wire, client, bridge.pause, bridge.resume, resident=True, is_loaded=True)
            with tenant:
                made.append((bridge, tenant))
                begun.set()
                bridge.serve()

        thread = threading.Thread(target=run)
        thread.start()
        assert begun.wait(5)
        bridge, tenant = made[0]

        def end() -> None:
            bridge.stop()
            bridge.stop()
            thread.join(30)
            assert not thread.is_alive()

        ends.append(end)
        if is_known:
            wait_for(lambda: tenant.is_allowed)
        return bridge

    yield begin
    for end in ends:
        end()


def test_it_is_off_before_the_gpu_is_granted(wire: Wire, server: FakeOllama, start: START) -> None:
    start()
    assert server.is_on_gpu()
    server.unload_secs = 0.7
    secs = acquire(wire)
    assert not server.is_on_gpu()
    assert secs is not None
    assert 0.7 <= secs < 3.0
    give_back(wire)
    server.compute(server.models["llama3:8b"], 0.0)  # loads again by itself
    time.sleep(0.6)
    assert server.is_on_gpu()  # and is left alone


def test_a_running_request_is_waited_for(wire: Wire, server: FakeOllama, start: START) -> None:
    start()
    threading.Thread(target=server.compute, args=(server.models["llama3:8b"], 1.5)).start()
    wait_for(lambda: server.models["llama3:8b"].computing)
    secs = acquire(wire)
    assert secs is not None
    assert secs >= 1.2
    assert not server.is_on_gpu()


def test_every_model_is_unloaded_also_those_for_embeddings(wire: Wire, server: FakeOllama, start: START) -> None:
    server.models["embedder"].is_loaded = True
    start()
    assert acquire(wire) is not None
    assert not server.is_on_gpu()


def test_a_model_in_ordinary_memory_is_left_alone(wire: Wire, server: FakeOllama, start: START) -> None:
    server.models["llama3:8b"].vram = 0
    start()
    assert acquire(wire) is not None
    assert server.models["llama3:8b"].is_loaded


def test_one_that_loads_while_the_gpu_is_lent_is_unloaded_again(
    wire: Wire, server: FakeOllama, start: START, caplog: pytest.LogCaptureFixture
) -> None:
    start()
    assert acquire(wire) is not None
    server.compute(server.models["llama3:8b"], 0.0)
    wait_for(lambda: not server.is_on_gpu())
    assert "came back while the gpu is lent" in caplog.text


def test_a_bridge_that_starts_while_the_gpu_is_lent_unloads_at_once(
    wire: Wire, server: FakeOllama, start: START
) -> None:
    assert acquire(wire) is not None
    start(is_known=False)
    wait_for(lambda: not server.is_on_gpu())
    give_back(wire)


class TestThatItIsNeverSaidToBePausedWithoutBeing:
    def refused(self, wire: Wire, server: FakeOllama) -> None:
        assert acquire(wire, pause_secs=1.0, freed_secs=2.5) is None

    def test_it_keeps_its_models(self, wire: Wire, server: FakeOllama, start: START) -> None:
        server.keeps_models = True
        start(pause_secs=1.5)
        self.refused(wire, server)
        assert server.is_on_gpu()
        # Nor when it is asked again, after the library has tried once.
        self.refused(wire, server)
        server.keeps_models = False
        assert acquire(wire) is not None
        assert not server.is_on_gpu()

    @pytest.mark.parametrize("status", [500, 503, 401])
    def test_it_answers_with_errors(self, wire: Wire, server: FakeOllama, start: START, status: int) -> None:
        start(pause_secs=1.5)
        server.status = status
        self.refused(wire, server)
        server.status = 0
        assert acquire(wire) is not None

    def test_it_hangs(self, wire: Wire, server: FakeOllama, start: START) -> None:
        start(pause_secs=1.5)
        server.hang_secs = 2.0
        self.refused(wire, server)
        server.hang_secs = 0.0
        assert acquire(wire) is not None

    @pytest.mark.parametrize("body", [[], {}, {"models": 7}, {"models": ["llama3:8b"]}, {"models": [{}]}, "nothing"])
    def test_it_is_no_ollama(self, wire: Wire, server: FakeOllama, start: START, body: object) -> None:
        start(pause_secs=1.0)
        server.body = body
        self.refused(wire, server)

    def test_a_field_that_an_older_one_does_not_send(self, wire: Wire, server: FakeOllama, start: START) -> None:
        start(pause_secs=1.0)
        server.body = {"models": [{"name": "llama3:8b"}]}
        self.refused(wire, server)
        server.body = {"models": None}
        assert acquire(wire) is not None


def test_one_that_is_not_running_is_off(wire: Wire, server: FakeOllama, start: START) -> None:
    start()
    server.stop()
    assert acquire(wire) is not None
    give_back(wire)
    server.start()
    server.compute(server.models["llama3:8b"], 0.0)
    assert acquire(wire) is not None
    assert not server.is_on_gpu()


def test_a_name_that_is_not_found_says_nothing_about_it() -> None:
    with pytest.raises(NeighbourError, match="does not answer"):
        Ollama("http://no-such-host.invalid:11434").is_off()
    assert Ollama("http://127.0.0.1:9").is_off()


@pytest.mark.parametrize("coordinator", ["v1", "v2"], indirect=True)
def test_beside_an_outside_coordinator(coordinator: NeighbourCoordinator, server: FakeOllama, start: START) -> None:
    start()
    coordinator.freed_secs = 5.0
    server.unload_secs = 1.0
    assert coordinator._take("theirs", "gemma-service") is None
    assert not server.is_on_gpu()


def test_after_the_end_it_is_left_alone(wire: Wire, server: FakeOllama, start: START) -> None:
    bridge = start()
    bridge.stop()
    wait_for(lambda: not wire.execute_command("PUBSUB", "NUMSUB", "gpu:command")[1])
    assert server.is_on_gpu()


def test_a_pause_during_the_end_is_no_success(server: FakeOllama) -> None:
    bridge = Bridge(Ollama(server.url), pause_secs=1.0)
    bridge.stop()
    raised: list[Exception] = []

    def pause() -> None:
        try:
            bridge.pause()
        except NeighbourError as error:
            raised.append(error)

    thread = threading.Thread(target=pause)
    thread.start()
    thread.join()
    assert len(raised) == 1


@pytest.mark.parametrize(
    ("value", "url"),
    [
        (None, "http://127.0.0.1:11434"),
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:9999", "http://127.0.0.1:9999"),
        ("localhost:1234", "http://localhost:1234"),
        ("http://gpu-box", "http://gpu-box:11434"),
        ("https://gpu-box/", "https://gpu-box"),
    ],
)
def test_the_address_in_ollamas_own_variable(value: str | None, url: str) -> None:
    assert url_of_environment(value).rstrip("/") == url
