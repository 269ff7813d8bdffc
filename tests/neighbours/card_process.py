"""The process of our runner in a neighbourhood: ``PARENT_PID DEADLINE MARK``.

Does what a runner does before it loads a model, then locks the file MARK in place of that: while it is locked, the
model is on the card. The lock of the card itself is inherited, and held earlier.
"""

import fcntl
import os
import sys
import time
from pathlib import Path

from inference.engine.process.deadline import end_when_passed
from inference.engine.process.parent_link import die_with_parent


def main(parent_pid: str, deadline: str, mark: str) -> None:
    die_with_parent(int(parent_pid))
    end_when_passed(Path(deadline))
    fcntl.flock(os.open(mark, os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.write(sys.stdout.fileno(), b"loaded\n")
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main(*sys.argv[1:])
