"""A plugin for pytest in llama.cpp's server tests: a service of this project in place of each ``llama-server``.

Runs in the environment of those tests and imports nothing of this project. SERVICE_CONTROL is the address that takes
the options of a server and answers with the port of a service that they mean (``tests.clients.suites.llama_server``).
Requests to ``/completion``, which is llama-server's own, go to ``/v1/completions``; of its answers they get the fields
that have the same meaning there.
"""

import json
import os
from collections.abc import Iterator
from typing import Any
from urllib.request import Request, urlopen

import utils  # type: ignore[import-not-found]  # of llama.cpp's tests


def _start(server: Any, timeout_seconds: int = 0) -> None:  # noqa: ANN401  a class of llama.cpp's tests
    options = {
        name: value
        for name, value in (vars(type(server)) | vars(server)).items()
        if isinstance(value, str | int | float | list) and not name.startswith("_")
    }
    options["case"] = os.environ["PYTEST_CURRENT_TEST"]
    request = Request(os.environ["SERVICE_CONTROL"], json.dumps(options).encode())  # noqa: S310  of this machine
    with urlopen(request, timeout=300) as response:  # noqa: S310
        server.server_port = json.load(response)["port"]
    server.ready = True


def _keep_running(server: Any) -> None:  # noqa: ANN401
    """The next case of a module mostly has the same options."""


def _openai_body(server: Any, body: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    changed = {name: value for name, value in body.items() if name not in ("n_predict", "n_probs", "return_tokens")}
    n_tokens = body.get("n_predict", server.n_predict)
    if n_tokens is not None and n_tokens >= 0:
        changed["max_tokens"] = n_tokens
    if "n_probs" in body:
        changed["logprobs"] = body["n_probs"]
    return changed


def _native_answers(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Return an answer of ``/completion`` for each choice."""
    answers = []
    for choice in answer["choices"]:
        native = {"content": choice["text"], "stop": choice["finish_reason"] is not None}
        native["stop_type"] = {"stop": "eos", "length": "limit"}.get(choice["finish_reason"], "none")
        if choice.get("logprobs"):
            native["completion_probabilities"] = choice["logprobs"].get("content")
        answers.append(native | ({"timings": answer["timings"]} if "timings" in answer else {}))
    return answers


def _completion(server: Any, method: str, path: str, data: Any = None, *further: Any, **options: Any) -> Any:  # noqa: ANN401
    if path != "/completion":
        return _make_request(server, method, path, data, *further, **options)
    result = _make_request(server, method, "/v1/completions", _openai_body(server, data), *further, **options)
    if result.status_code == 200:
        answers = _native_answers(result.body)
        result.body = answers if len(answers) > 1 else answers[0]
    return result


def _completion_stream(
    server: Any,  # noqa: ANN401
    method: str,
    path: str,
    data: Any = None,  # noqa: ANN401
    *further: Any,  # noqa: ANN401
    **options: Any,  # noqa: ANN401
) -> Iterator[Any]:
    if path != "/completion":
        yield from _make_stream_request(server, method, path, data, *further, **options)
        return
    body = _openai_body(server, data)
    for event in _make_stream_request(server, method, "/v1/completions", body, *further, **options):
        yield from _native_answers(event)


_make_request, _make_stream_request = utils.ServerProcess.make_request, utils.ServerProcess.make_stream_request
utils.ServerProcess.make_request, utils.ServerProcess.make_stream_request = _completion, _completion_stream
utils.ServerProcess.start = _start
utils.ServerProcess.stop = _keep_running
utils.ServerPreset.load_all = staticmethod(lambda: None)
