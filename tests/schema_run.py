"""Run schemathesis over a service of its own with scripted answers: ``python -m tests.schema_run PROGRAM SECS``.

The exit status is schemathesis' own: 0 when no answer was a 5xx other than an expected 504, undocumented, or of another
type than documented.
"""

import subprocess
import sys
from pathlib import Path

from tests.live_stack import LiveStack

CONFIG = Path(__file__).with_name("schemathesis.toml")
CHECKS = "all"
# By the older protocol of the coordinator a refusal is a 500, after a wait of up to 70 s; the others are 501s.
EXCLUDED = ("/gemma/request", "/settings/update", "/score-chunk")
ENVIRONMENT = {"STREAM_GRACE_SECS": "0.5", "GEMMA_CONTEXT_SIZE": "8192", "GPU_LEASE_TTL_SECS": "2"}


def main(program: str, secs: str) -> int:
    stack = LiveStack(backend="fake", environment=ENVIRONMENT)
    try:
        stack.start()
        command = [
            program,
            "--config-file",
            str(CONFIG),
            "run",
            f"{stack.url}/api/schema/",
            "--checks",
            CHECKS,
            "--max-time",
            secs,
        ]
        command += [argument for path in EXCLUDED for argument in ("--exclude-path", path)]
        command += [
            "--continue-on-failure",
            "--request-timeout",
            "60",
            "--no-color",
            "--generation-database",
            "none",
        ]
        return subprocess.run(command, check=False).returncode
    finally:
        stack.clean_up()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
