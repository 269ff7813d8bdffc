"""llama.cpp's server tests against services: ``python -m tests.clients.suites.llama_server PYTHON [MODULE ...]``.

The tests are those in the source distribution of the installed llama-cpp-python. A service is started for the options
that a case gives its server, and stays for the next cases with the same ones. Cases that this service cannot pass are
in ``llama_server.toml``.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from inference.auth import signing
from inference.auth.signing import SigningKey
from tests.clients.suites import cases
from tests.clients.suites.proxy import ProxiedRequest, rewriting_proxy
from tests.clients.suites.sources import unpacked
from tests.live_stack import LiveStack, running_stack

PACKAGE = "llama-cpp-python"
LLAMA = "vendor/llama.cpp"
PLUGIN = Path(__file__).parent / "plugin"
MODULES: tuple[str, ...] = (
    "tokenize",
    "compat_oai_responses",
    "compat_anthropic",
    "embedding",
    "tool_call",
    "security",
)
MODULES += ("basic", "completion", "ctx_shift", "ignore_eos", "chat_completion")
# Cases whose prompt is too long for the context of a sequence; all others get a context that their prompts fit into.
FULL_CONTEXT = ("long_input_prompt", "disabled_long_prompt", "context_size_exceeded")
SECRET = "a-secret-of-these-tests-alone-and-long-enough"
KEY = SigningKey("k1", signing.secret_bytes("JWT_SECRET_PRIMARY", SECRET))
Environment = dict[str, str]


def environment_of(options: Mapping[str, Any], tests: Path) -> Environment:
    """Return the settings that mean the same as a server's options."""
    environment = {
        "GEMMA_SYSTEM_PROMPT": "Be brief.",
        # Tokens of the scripted model are bytes: a context in tokens of tinyllama would hold no case.
        "GEMMA_CONTEXT_SIZE": "8192",
        "MODEL_ALIASES": "*",
        "QUEUE_MAX_PER_CALLER": "200",
    }
    if any(name in options["case"] for name in FULL_CONTEXT):
        environment["GEMMA_CONTEXT_SIZE"] = str(options["n_ctx"] // options["n_slots"])
    if file := options.get("chat_template_file"):
        environment["GEMMA_CHAT_TEMPLATE_FILE"] = str((tests / file).resolve())
    if options.get("api_key"):
        environment |= {"JWT_ONLY": "true", "JWT_SECRET_PRIMARY": SECRET}
    return environment


def with_credentials(request: ProxiedRequest, key: str) -> ProxiedRequest:
    """Put a service token in place of the key of the tests."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    if f"Bearer {key}" == headers.get("authorization") or headers.get("x-api-key") == key:
        headers.pop("authorization", None)
        headers["x-service-token"] = signing.minted(KEY, "gateway")
    return replace(request, headers=headers)


class Services:
    """The one service that runs, and a proxy in front of it for options with a key."""

    def __init__(self, tests: Path) -> None:
        self._tests = tests
        self._stack = ExitStack()
        self._environment: Environment | None = None
        self._service: LiveStack | None = None
        self._key = ""
        self.n_started = 0

    def port_for(self, options: Mapping[str, Any]) -> int:
        """Return the port of a service for these options; the one that runs is kept or replaced."""
        environment, key = environment_of(options, self._tests), options.get("api_key") or ""
        if (environment, key) != (self._environment, self._key):
            self.close()
            stack = self._stack.enter_context(running_stack("fake", **environment))
            address = stack.url
            if key:
                address = self._stack.enter_context(
                    rewriting_proxy(stack.url, lambda request: with_credentials(request, key))
                )
            self._environment, self._key, self._address = environment, key, address
            self.n_started += 1
        port = urlsplit(self._address).port
        assert port is not None
        return port

    def close(self) -> None:
        self._environment = None
        self._stack.close()


@contextmanager
def control(services: Services) -> Iterator[str]:
    """Take the options of servers for the time of the block; yields the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            options = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                port, status = services.port_for(options), 200
            except AssertionError as error:  # it did not start
                sys.stderr.write(f"{error}\n")
                port, status = 0, 500
            body = json.dumps({"port": port}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Write nothing: the tests report what went wrong."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            services.close()


def main(python: str, modules: list[str]) -> int:
    with TemporaryDirectory() as scratch:
        tests = unpacked(f"{PACKAGE}=={version(PACKAGE)}", Path(scratch), part=LLAMA) / "tools/server/tests"
        report = Path(scratch) / "report.xml"
        services = Services(tests)
        with control(services) as address:
            subprocess.run(
                [
                    *(python, "-m", "pytest", "-q", "--tb=short", "-p", "llama_plugin", "-m", "not slow"),
                    *(f"--junitxml={report}", *(f"unit/test_{module}.py" for module in modules)),
                ],
                cwd=tests,
                env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{PLUGIN}:{tests}", "SERVICE_CONTROL": address},
                check=False,
            )
        name = f"llama.cpp's server tests of {PACKAGE} {version(PACKAGE)}, {services.n_started} services"
        prefixes = tuple(f"unit.test_{module}." for module in modules)
        exceptions = [
            replace(exception, cases=tuple(case for case in exception.cases if case.startswith(prefixes)))
            for exception in cases.left_out(cases.FOLDER / "llama_server.toml")
        ]
        return cases.verdict(name, cases.outcomes(report), exceptions)


if __name__ == "__main__":
    sys.exit(main(str(Path(sys.argv[1]).absolute()), sys.argv[2:] or list(MODULES)))
