"""Breaks a running service again and again, by seeded dice, and waits each time until it is well again."""

import random
import time
from collections.abc import Callable
from contextlib import suppress

import psutil
import redis

from tests.faults.breaking import FaultStack
from tests.faults.broker import Broker
from tests.faults.history import History
from tests.faults.proxy import TcpProxy
from tests.live_stack import free_port

CALM_SECS = (0.5, 4.0)
DOWN_SECS = (0.1, 2.0)
FULL_BYTES = 512 * 1024 * 1024


class Surroundings:
    """A broker behind a proxy, and the service on it."""

    def __init__(self, **environment: str) -> None:
        port = free_port()
        self.broker = Broker(port=port)
        self.proxy = TcpProxy(port)
        self._environment = environment
        self.stack: FaultStack

    def start(self) -> FaultStack:
        self.broker.start()
        self.proxy.start()
        self.stack = FaultStack(
            backend="fake", environment={**self._environment, "REDIS_URL": f"redis://127.0.0.1:{self.proxy.port}/0"}
        )
        self.stack.start()
        return self.stack

    def clean_up(self) -> None:
        if hasattr(self, "stack"):
            self.stack.clean_up()
        self.proxy.end()
        self.broker.clean_up()


class Nemesis:
    """``strike`` does one thing. The same seed gives the same things in the same order."""

    def __init__(self, around: Surroundings, history: History, *, seed: int, claim_ttl_secs: float) -> None:
        self._around = around
        self._history = history
        self._dice = random.Random(seed)
        self._claim_ttl_secs = claim_ttl_secs
        self._faults: dict[str, Callable[[], None]] = {
            "kill -9 worker": lambda: self._kill("gemma-worker"),
            "kill -9 web": lambda: self._kill("gemma-web"),
            "kill -9 runner": lambda: self._kill("gemma-runner cpu"),
            "kill -9 card's runner": lambda: self._kill("gemma-runner gpu"),
            "kill -9 broker": self._kill_broker,
            "freeze worker": self._freeze_worker,
            "cut broker": lambda: self._around.proxy.cut(),
            "stall broker": self._stall,
            "fill broker": self._fill,
            "lock database": self._lock,
        }

    def run(self, secs: float) -> None:
        deadline = time.monotonic() + secs
        while time.monotonic() < deadline:
            self.strike()
            self._around.stack.wait_until_healthy()
            time.sleep(self._dice.uniform(*CALM_SECS))

    def strike(self) -> str:
        name = self._dice.choice(sorted(self._faults))
        self._history.struck(name)
        self._faults[name]()
        return name

    def _down_secs(self) -> float:
        return self._dice.uniform(*DOWN_SECS)

    def _kill(self, title: str) -> None:
        # It may be dead already, from the previous fault.
        with suppress(AssertionError, psutil.NoSuchProcess):
            self._around.stack.kill(title)

    def _kill_broker(self) -> None:
        self._around.broker.kill()
        time.sleep(self._down_secs())
        self._around.broker.start()

    def _freeze_worker(self) -> None:
        with suppress(AssertionError, psutil.NoSuchProcess), self._around.stack.frozen("gemma-worker"):
            time.sleep(1.5 * self._claim_ttl_secs)

    def _stall(self) -> None:
        self._around.proxy.stall()
        time.sleep(self._down_secs())
        if self._dice.random() < 0.5:
            self._around.proxy.cut()
        self._around.proxy.flow()

    def _fill(self) -> None:
        client = self._around.broker.client()
        with suppress(redis.RedisError):
            client.config_set("maxmemory", 1)
            time.sleep(self._down_secs())
        client.config_set("maxmemory", FULL_BYTES)
        client.close()

    def _lock(self) -> None:
        with self._around.stack.locked_database(self._down_secs()):
            pass
