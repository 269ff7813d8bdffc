"""A plugin for pytest in llama.cpp's server tests: a service of this project in place of each ``llama-server``.

Runs in the environment of those tests and imports nothing of this project. SERVICE_CONTROL is the address that takes
the options of a server and answers with the port of a service that they mean (``tests.clients.suites.llama_server``).
"""

import json
import os
from typing import Any
from urllib.request import Request, urlopen

import utils  # type: ignore[import-not-found]  # of llama.cpp's tests


def _start(server: Any, timeout_seconds: int = 0) -> None:  # noqa: ANN401  a class of llama.cpp's tests
    options = {
        name: value
        for name, value in (vars(type(server)) | vars(server)).items()
        if isinstance(value, str | int | float | list) and not name.startswith("_")
    }
    request = Request(os.environ["SERVICE_CONTROL"], json.dumps(options).encode())  # noqa: S310  of this machine
    with urlopen(request, timeout=300) as response:  # noqa: S310
        server.server_port = json.load(response)["port"]
    server.ready = True


def _keep_running(server: Any) -> None:  # noqa: ANN401
    """The next case of a module mostly has the same options."""


utils.ServerProcess.start = _start
utils.ServerProcess.stop = _keep_running
utils.ServerPreset.load_all = staticmethod(lambda: None)
