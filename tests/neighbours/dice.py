"""Faults of a neighbourhood, drawn by seeded dice. Each lasts at most a few seconds, and ends before the next."""

import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress

import psutil
import redis

from tests.neighbours import programs
from tests.neighbours.card_ledger import OURS
from tests.neighbours.neighbourhood import SLOW_FREE_SECS, USUAL_FREE_SECS, Neighbourhood
from tests.neighbours.programs import FREED_SECS

CALM_EVERY = 40  # faults
CALM_SECS = 40.0
STATE_SECS = 2.0  # to reach the state in which a fault is due
GAP_SECS = (0.05, 0.45)
DOWN_SECS = (0.1, 1.5)
FROZEN_SECS = (0.2, 3.0)
CHAT_CHANCE = 0.5


class Dice:
    """``run`` injects faults. The same seed gives the same faults in the same order."""

    def __init__(self, around: Neighbourhood, seed: int) -> None:
        self._around = around
        self._random = random.Random(f"{seed} {around.combination}")
        self.counts: Counter[str] = Counter()
        self.longest_calm_secs = 0.0
        self._faults: dict[str, Callable[[], None]] = {
            "worker killed while holding": lambda: self._kill_worker("gpu"),
            "worker killed in the linger": self._kill_in_linger,
            "worker killed while waiting": lambda: self._kill_worker("waiting"),
            "worker frozen while holding": self._freeze_worker,
            "runner killed": lambda: self._strike_runner(signal.SIGKILL),
            "runner hung": lambda: self._strike_runner(signal.SIGSTOP),
            "redis killed": self._kill_redis,
            "redis frozen": self._freeze_redis,
            "redis flushed": self._flush_redis,
            "subscribers cut": self._cut_subscribers,
            "web process killed": self._kill_web,
            "service killed": self._kill_service,
            "tenant killed": self._kill_tenant,
            "tenant frozen": self._freeze_tenant,
            "tenant slow": lambda: self._slow_tenant(SLOW_FREE_SECS),
            "tenant slower than allowed": lambda: self._slow_tenant(FREED_SECS + 0.7),
            "second tenant": self._second_tenant,
        }
        if around.coordinator is None:
            self._faults["ledger locked"] = self._lock_ledger
        else:
            self._faults |= {
                "coordinator away": self._coordinator_away,
                "coordinator slow": lambda: self._coordinator_switch("delay_secs", 1.2, 0.0),
                "coordinator answers 401": lambda: self._coordinator_switch("token_status", 401, 0),
                "coordinator answers 500": lambda: self._coordinator_switch("token_status", 500, 0),
                "coordinator refuses": lambda: self._coordinator_switch("refuses", True, False),
            }
        if around.combination.tenant != "ours":
            self._faults["tenant deaf"] = self._deafen_tenant

    def run(self, n_faults: int) -> None:
        for number in range(1, n_faults + 1):
            self._toggle_chat()
            name = self._random.choice(sorted(self._faults))
            self._around.last_fault = name
            self._around.log(f"fault: {name}")
            self._faults[name]()
            self._around.log(f"over: {name}")
            self.counts[name] += 1
            time.sleep(self._random.uniform(*GAP_SECS))
            if number % CALM_EVERY == 0 or number == n_faults:
                self._calm()

    def _toggle_chat(self) -> None:
        if self._random.random() < CHAT_CHANCE:
            self._around.chat(is_active=not self._around.is_chat_active)

    def _calm(self) -> None:
        """Without faults the chat has to get the card, and then everybody else."""
        around, began = self._around, time.monotonic()
        if not around.combination.can_meet:
            return
        around.last_fault = "calm, chat"
        around.chat(is_active=True)
        self._wait(lambda: OURS in around.ledger.look(), "the chat got the card")
        around.last_fault = "calm, silence"
        around.chat(is_active=False)
        self._wait(lambda: set(around.residents) <= around.ledger.look(), "the residents got the card")
        self.longest_calm_secs = max(self.longest_calm_secs, time.monotonic() - began)

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + CALM_SECS
        while not condition():
            around = self._around
            assert time.monotonic() < deadline, f"{around.combination}: not within {CALM_SECS:g} s: {what}"
            time.sleep(0.01)

    def _down(self) -> None:
        time.sleep(self._random.uniform(*DOWN_SECS))

    # ---- ours ----

    def _reach(self, state: str) -> None:
        deadline = time.monotonic() + STATE_SECS
        while self._around.worker_state() != state and time.monotonic() < deadline:
            time.sleep(0.02)

    def _kill_worker(self, state: str) -> None:
        self._around.chat(is_active=True)
        self._reach(state)
        self._replace_worker()

    def _kill_in_linger(self) -> None:
        self._around.chat(is_active=True)
        self._reach("gpu")
        self._around.chat(is_active=False)
        time.sleep(self._random.uniform(0.0, 0.35))
        self._replace_worker()

    def _replace_worker(self) -> None:
        self._around.kill("worker")
        self._down()
        self._around.start("worker", programs.run_worker)
        self._around.tell_worker()

    def _freeze_worker(self) -> None:
        self._around.chat(is_active=True)
        self._reach("gpu")
        with self._around.frozen("worker"):
            time.sleep(self._random.uniform(*FROZEN_SECS))
        self._around.tell_worker()

    def _strike_runner(self, blow: signal.Signals) -> None:
        self._around.chat(is_active=True)
        self._reach("gpu")
        runner = self._around.runner()
        with suppress(psutil.NoSuchProcess):
            if runner is not None:
                runner.send_signal(blow)

    def _kill_web(self) -> None:
        self._around.kill("web")
        self._down()
        self._around.start("web", programs.run_web)

    def _kill_service(self) -> None:
        self._around.kill("worker")
        self._around.kill("web")
        self._down()
        self._around.start("web", programs.run_web)
        self._around.start("worker", programs.run_worker)
        self._around.tell_worker()

    def _lock_ledger(self) -> None:
        with closing(sqlite3.connect(self._around.around.database, timeout=5.0, isolation_level=None)) as database:
            database.execute("BEGIN EXCLUSIVE")
            time.sleep(self._random.uniform(0.2, 4.0))
            database.execute("ROLLBACK")

    # ---- Redis ----

    def _kill_redis(self) -> None:
        self._around.broker.kill()
        # Now and then for longer than both sides wait for it.
        time.sleep(self._random.choice((0.2, 0.8, 1.5, programs.LEAVE_SECS + 1.0, programs.LONELY_SECS + 1.5)))
        self._around.broker.start()
        self._around.messages_lost()

    def _freeze_redis(self) -> None:
        self._around.broker.signal(signal.SIGSTOP)
        time.sleep(self._random.uniform(*FROZEN_SECS))
        self._around.broker.signal(signal.SIGCONT)
        self._around.messages_lost()

    def _flush_redis(self) -> None:
        with suppress(redis.RedisError):
            self._around.wire.flushall()

    def _cut_subscribers(self) -> None:
        with suppress(redis.RedisError):
            self._around.wire.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        self._around.messages_lost()

    # ---- their side ----

    def _resident(self) -> str:
        return self._random.choice(sorted(self._around.residents))

    def _kill_tenant(self) -> None:
        name = self._resident()
        self._around.kill(name)
        self._down()
        self._around.start_resident(name)

    def _freeze_tenant(self) -> None:
        with self._around.frozen(self._resident()):
            time.sleep(self._random.uniform(*FROZEN_SECS))
        self._around.messages_lost()  # Redis may have closed its connection

    def _slow_tenant(self, secs: float) -> None:
        tenant = self._around.programs[self._resident()]
        tenant.order(str(secs))
        self._around.chat(is_active=True)
        self._reach("gpu")
        tenant.order(str(USUAL_FREE_SECS))

    def _deafen_tenant(self) -> None:
        tenant = self._around.programs[self._resident()]
        tenant.order("deaf")
        self._down()
        tenant.order("hears")
        self._around.messages_lost()

    def _second_tenant(self) -> None:
        if "resident 2" in self._around.residents:
            (self._around.leave if self._random.random() < 0.5 else self._around.kill)("resident 2")
        else:
            self._around.start_resident("resident 2")

    def _coordinator_away(self) -> None:
        assert self._around.coordinator is not None
        self._around.coordinator.stop()
        self._down()
        self._around.coordinator.start()

    def _coordinator_switch(self, name: str, value: object, usual: object) -> None:
        setattr(self._around.coordinator, name, value)
        self._down()
        setattr(self._around.coordinator, name, usual)
