"""Processes of this machine by their ids. Knows nothing of their tasks."""

import os


def is_running(pid: int) -> bool:
    """Return whether a process with this id exists, of any user."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # a process of another user
        return True
    return True
