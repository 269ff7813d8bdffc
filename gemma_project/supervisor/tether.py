"""Runs a command that dies with its parent: ``python tether.py PARENT_PID COMMAND ARGUMENT...``.

A program of its own, because code between fork and exec is unsafe in a process with threads. Imports no Django.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel for SIGKILL when the parent is gone; end at once if it is gone already.

    The kernel sends it when the THREAD that started this process ends, so that must be one that runs as long as its
    process. The request survives exec.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    # The parent may have died between our fork and the request above.
    if os.getppid() != parent_pid:
        os._exit(1)


def tethered(command: list[str]) -> list[str]:
    """Return the command line that ends the command together with this process."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606  the command comes from our own supervisor
