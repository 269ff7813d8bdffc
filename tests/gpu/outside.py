"""Starts the coordinator process of the tests and reads its state."""

import os
import subprocess
import sys
from typing import Any

import httpx

from tests.live_stack import PROJECT


class CoordinatorProcess:
    """A coordinator that speaks the given generation of the protocol, on a free port."""

    def __init__(self, generation: str, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.gpu_coordinator_process", "0", generation],
            stdout=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
            env=os.environ | environment,
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        self._client = httpx.Client(base_url=self.url, trust_env=False)

    def behave(self, **mood: object) -> dict[str, Any]:
        answer: dict[str, Any] = self._client.post("/test", json=mood).json()
        return answer

    def holder(self) -> list[str]:
        found: list[str] = self.behave()["holder"]
        return found

    def stop(self) -> None:
        self._client.close()
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
