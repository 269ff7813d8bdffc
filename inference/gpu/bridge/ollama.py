"""Ollama: unloads its models by ``keep_alive: 0``, and lets it load them again with its next request.

Its answer to an unload comes at once; ``/api/ps`` names the model until its memory is free, which waits for the request
that it computes.
"""

import logging
from http import HTTPStatus
from typing import Any

import httpx

from inference.gpu.bridge.neighbour import NeighbourError
from inference.runtime.http_calls import call, json_of, open_client

log = logging.getLogger(__name__)

DEFAULT_URL = "http://127.0.0.1:11434"
TIMEOUT_SECS = 5.0


class Ollama:
    """An Ollama server at ``url``. One that does not listen is not running, and holds nothing."""

    name = "ollama"
    watch_secs = 1.0

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = open_client(url)

    def is_off(self) -> bool:
        return not self._loaded()

    def leave(self) -> None:
        for model in self._loaded():
            log.info("unloading neighbour=ollama model=%s", model)
            response = self._send("POST", "/api/generate", {"model": model, "keep_alive": 0})
            if response is not None and response.status_code == HTTPStatus.BAD_REQUEST:
                # A model for embeddings alone. One that is not loaded would be loaded by this; it is.
                response = self._send("POST", "/api/embed", {"model": model, "input": [], "keep_alive": 0})
            # 404: deleted meanwhile; it is unloaded with its last request.
            if response is not None and response.status_code != HTTPStatus.NOT_FOUND and response.is_error:
                raise NeighbourError(f"ollama answers {response.status_code} to the unloading of {model}")

    def come_back(self) -> None:
        """Do nothing: it loads a model with its next request."""

    def interrupt(self) -> None:
        """Do nothing: no call takes longer than TIMEOUT_SECS."""

    def needs_resume(self) -> bool:
        return False

    def is_running(self) -> bool:
        """Return whether it answers. Raises NeighbourError for anything else than Ollama at this address."""
        self._loaded()
        return self._send("GET", "/api/ps") is not None

    def close(self) -> None:
        self._client.close()

    def _loaded(self) -> list[str]:
        """Return the names of the models that have memory of the GPU."""
        response = self._send("GET", "/api/ps")
        if response is None:
            return []
        try:
            models = json_of(response.raise_for_status())["models"] or []
            # A model without the field may be on the GPU.
            on_gpu = [model for model in models if model.get("size_vram") != 0]
            return [str(model.get("name") or model["model"]) for model in on_gpu]
        except (httpx.HTTPStatusError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise NeighbourError(f"{self.url}/api/ps does not answer as ollama's does: {error}") from error

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response | None:
        """Return the answer, None where nothing listens."""
        try:
            return call(self._client, method, path, secs=TIMEOUT_SECS, body=body)
        except httpx.HTTPError as error:
            # A refusal shows that nothing listens; without a name or a route nothing is known of the machine.
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, ConnectionRefusedError):
                cause = cause.__cause__ or cause.__context__
            if cause is not None:
                return None
            raise NeighbourError(f"ollama at {self.url} does not answer ({type(error).__name__})") from error


def url_of_environment(value: str | None) -> str:
    """Return the address that Ollama's own variable OLLAMA_HOST names, for a client of this machine."""
    text = (value or "").strip().rstrip("/")
    if not text:
        return DEFAULT_URL
    if "://" not in text:
        text = f"http://{text}"
    address = httpx.URL(text)
    host = "127.0.0.1" if address.host in ("", "0.0.0.0", "::") else address.host  # noqa: S104  # nosec B104  # to call
    return str(address.copy_with(host=host, port=address.port or (None if "https" in text else 11434)))
