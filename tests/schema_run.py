"""Run schemathesis over a service of its own with scripted answers: ``python -m tests.schema_run PROGRAM SECS``.

As a caller without credentials, then as a user who is staff, half of the time each. The exit status is 0 when all
checks of schemathesis passed, with the exceptions of schemathesis.toml: no answer was a 5xx, undocumented, of another
type than documented, late, or a success for a body that the document forbids.
"""

import subprocess
import sys
from pathlib import Path

from tests.api.live import make_users
from tests.live_stack import LiveStack

CONFIG = Path(__file__).with_name("schemathesis.toml")
# By the older protocol of the coordinator a refusal is a 500, after a wait of up to 70 s; the others are 501s.
EXCLUDED = ("/gemma/request", "/settings/update", "/score-chunk")
ENVIRONMENT = {"STREAM_GRACE_SECS": "0.5", "GEMMA_CONTEXT_SIZE": "8192", "GPU_LEASE_TTL_SECS": "2"}
ENVIRONMENT["JWT_ACCESS_SECS"] = "86400"
STAFF = "from django.contrib.auth.models import User; User.objects.update(is_staff=True)"
MAX_RESPONSE_SECS = 75  # /gpu/acquire waits for a lease that an earlier request has got


def main(program: str, secs: str) -> int:
    stack = LiveStack(backend="fake", environment=ENVIRONMENT)
    try:
        stack.start()
        [user] = make_users(stack, "ann")
        assert stack.run("shell", "-c", STAFF).returncode == 0
        half = str(max(1, int(secs) // 2))
        statuses = [
            run(program, stack.url, half),
            run(program, stack.url, half, "--header", f"Authorization: Bearer {user.access}"),
        ]
        return max(statuses)
    finally:
        stack.clean_up()


def run(program: str, url: str, secs: str, *options: str) -> int:
    command = [program, "--config-file", str(CONFIG), "run", f"{url}/api/schema/", "--checks", "all"]
    command += ["--max-time", secs, "--max-response-time", str(MAX_RESPONSE_SECS)]
    command += ["--request-timeout", str(MAX_RESPONSE_SECS + 5), "--continue-on-failure", "--no-color"]
    command += ["--generation-database", "none", *options]
    command += [argument for path in EXCLUDED for argument in ("--exclude-path", path)]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
