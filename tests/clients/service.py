"""A service for foreign clients, and their programs run against it: ``python -m tests.clients.service PYTHON``."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.live_stack import running_stack

CALLS = Path(__file__).parent / "openai_calls.py"
ENVIRONMENT = {
    "GEMMA_CONTEXT_SIZE": "8192",
    "MODEL_ALIASES": "*",
    "QUEUE_MAX_PER_CALLER": "8",
    "STREAM_GRACE_SECS": "0.2",
}


@contextmanager
def client_service() -> Iterator[str]:
    """Run a service with scripted answers; yields its address."""
    with running_stack(**ENVIRONMENT) as stack:
        yield stack.url


def main(python: str) -> int:
    """Run the calls with another interpreter, whose environment has another version of the package."""
    with client_service() as url:
        return subprocess.run([python, str(CALLS), url], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
