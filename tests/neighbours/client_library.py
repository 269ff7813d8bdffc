"""The coordinator's client library as the stack around this service has it, written from its behaviour.

It takes every 200 for a grant, whatever the body says, falls back to the first generation on a 404, and ignores what it
does not know.
"""

import httpx


class NeighbourClient:
    """``token`` is sent as it is. A refusal is an HTTPStatusError."""

    def __init__(self, url: str, *, token: str | None = None) -> None:
        headers = {"X-Service-Token": token} if token else {}
        self._client = httpx.Client(base_url=url, headers=headers, timeout=30.0, trust_env=False)
        self.is_old = False

    def acquire(self, session: str, *, priority: int = 1, timeout_ms: int = 5000) -> None:
        fields = {"session_id": session, "requester": "ml-service", "priority": priority, "timeout_ms": timeout_ms}
        if not self.is_old:
            response = self._client.post("/gpu/acquire", json=fields | {"metadata": {}})
            if response.status_code != httpx.codes.NOT_FOUND:
                response.raise_for_status()
                return
            self.is_old = True
        body = {"task_id": session, "messages": [], "max_tokens": 1, "temperature": 0.7, "context": None}
        self._client.post("/gemma/request", json=body).raise_for_status()

    def release(self, session: str) -> None:
        if self.is_old:
            self._client.post(f"/gemma/release/{session}", json={"result": "done"}).raise_for_status()
        else:
            fields = {"session_id": session, "requester": "ml-service", "result": {"tokens": 3}}
            self._client.post("/gpu/release", json=fields).raise_for_status()

    def owner(self) -> str:
        """Return the session that has the GPU, or an empty text."""
        if self.is_old:
            status = self._client.get("/status").raise_for_status().json()
            return str(status["lock_status"]["current_task"] or "")
        return str(self._client.get("/gpu/state").raise_for_status().json()["session_id"] or "")

    def close(self) -> None:
        self._client.close()
