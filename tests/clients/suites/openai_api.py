"""The API tests of the ``openai`` package against a service: ``python -m tests.clients.suites.openai_api PYTHON``.

They are written for a server of examples: ids are invented, and the service is reached through a proxy that puts those
of fresh responses in their place. Cases against the rules of this service are in ``openai_api.toml``.
"""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from tests.clients.suites import cases
from tests.clients.suites.proxy import ProxiedRequest, rewriting_proxy
from tests.clients.suites.sources import unpacked
from tests.live_stack import running_stack

TESTS = (
    "test_models.py",
    "test_embeddings.py",
    "test_completions.py",
    "chat",
    "test_responses.py",
    "responses",
)
ENVIRONMENT = {"MODEL_ALIASES": "*", "GEMMA_CONTEXT_SIZE": "2048", "QUEUE_MAX_PER_CALLER": "200"}
INVENTED = ("resp_677efb5139a88190b512bc3fef8e535d", "response_id", "previous_response_id", "resp_123")
_STORED_PATH = re.compile(rf"^/responses/({'|'.join(INVENTED)})(?P<rest>/.*|\?.*|)$")


class FreshIds:
    """Puts responses that exist in place of invented ones."""

    def __init__(self, service: str) -> None:
        self._client = httpx.Client(base_url=service, timeout=60)

    def rewrite(self, request: ProxiedRequest) -> ProxiedRequest:
        """Return the request under ``/v1`` and with ids of fresh responses."""
        path = request.path
        if match := _STORED_PATH.match(path):
            rest = match["rest"]
            response = self._response(background=rest.startswith("/cancel"))
            if "after=after" in rest:
                [item] = self._client.get(f"/v1/responses/{response}/input_items").json()["data"]
                rest = rest.replace("after=after", f"after={item['id']}")
            path = f"/responses/{response}{rest}"
        body = request.body
        if body and json.loads(body).get("previous_response_id") in INVENTED:
            body = json.dumps(json.loads(body) | {"previous_response_id": self._response()}).encode()
        return replace(request, path=f"/v1{path}", body=body)

    def _response(self, *, background: bool = False) -> str:
        body: dict[str, Any] = {"input": "[[say: Hello]]", "background": background}
        answer = self._client.post("/v1/responses", json=body).raise_for_status().json()
        return str(answer["id"])


def main(python: str) -> int:
    """Run the tests of the version of the package that the other interpreter has."""
    command = [python, "-c", "import openai; print(openai.__version__)"]
    version = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    with TemporaryDirectory() as scratch, running_stack(**ENVIRONMENT) as stack:
        root = unpacked(f"openai=={version}", Path(scratch))
        report = Path(scratch) / "report.xml"
        with rewriting_proxy(stack.url, FreshIds(stack.url).rewrite) as address:
            subprocess.run(
                [python, "-m", "pytest", "-q", "-o", "addopts=--tb=short", f"--junitxml={report}"]
                + [f"tests/api_resources/{test}" for test in TESTS],
                cwd=root,
                env={**stack.environment, "TEST_API_BASE_URL": address},
                stdout=subprocess.DEVNULL if "--quiet" in sys.argv else None,
                check=False,
            )
        exceptions = cases.left_out(cases.FOLDER / "openai_api.toml")
        return cases.verdict(f"openai {version}, tests/api_resources", cases.outcomes(report), exceptions)


if __name__ == "__main__":
    sys.exit(main(str(Path(sys.argv[1]).absolute())))
