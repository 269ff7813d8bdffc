"""The ``llm`` command line against scripted answers: ``python -m tests.clients.suites.llm_cli PYTHON``."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.clients.service import client_service

HELLO = "[[say: Hello there]]"
Run = Callable[..., str]


def run_llm(llm: Path, url: str, folder: Path, *arguments: str) -> str:
    """Return what ``llm openai endpoint`` prints. Raises CalledProcessError."""
    command = [str(llm), "openai", "endpoint", f"{url}/v1", *arguments]
    environment = {"PATH": "/usr/bin:/bin", "LLM_USER_PATH": str(folder), "HOME": str(folder)}
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.strip()


def lists_models(run: Run) -> bool:
    return "fake" in run("--models")


def streams(run: Run) -> bool:
    return run("-m", "default", HELLO) == "Hello there"


def answers_whole(run: Run) -> bool:
    return run("-m", "default", "--no-stream", HELLO) == "Hello there"


def takes_a_system_prompt(run: Run) -> bool:
    return run("-m", "default", "-s", "Be brief.", HELLO) == "Hello there"


def takes_options(run: Run) -> bool:
    return run("-m", "default", "-o", "max_tokens", "5", "-o", "temperature", "0", HELLO) == "Hello"


def uses_responses(run: Run) -> bool:
    return run("-m", "default", "--responses", HELLO) == "Hello there"


def fills_a_schema(run: Run) -> bool:
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    return json.loads(run("-m", "default", "--schema", json.dumps(schema), "no JSON"))["n"] in (1, 2)


CALLS: tuple[Callable[[Run], bool], ...] = (
    lists_models,
    streams,
    answers_whole,
    takes_a_system_prompt,
    takes_options,
    uses_responses,
    fills_a_schema,
)


def main(python: Path) -> int:
    failures = []
    with client_service() as url, TemporaryDirectory() as folder:
        for call in CALLS:
            try:
                is_right = call(partial(run_llm, python.parent / "llm", url, Path(folder)))
            except subprocess.CalledProcessError as error:
                sys.stderr.write(f"{call.__name__}: {error.stderr[-2000:]}\n")
                is_right = False
            failures += [] if is_right else [call.__name__]
    lines = [f"llm: {len(CALLS) - len(failures)} of {len(CALLS)} calls passed", *(f"  FAILED: {it}" for it in failures)]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).absolute()))
