"""The llama.cpp library in this process: its start, and its log as ours."""

import logging
from functools import cache

from inference.engine.backends import llama_cpp_api as lib

logger = logging.getLogger(__name__)

LOG_WARN, LOG_ERROR, LOG_CONTINUE = 3, 4, 5
CONTROL_LOOKING = "control-looking token"


def has_cuda() -> bool:
    """Whether the installed build can use an NVIDIA card; its files say so, without loading what would look at one."""
    return any(lib.library_folder().glob("*ggml-cuda*"))


@cache
def start_library() -> object:
    """Send llama.cpp's warnings and errors to our log and initialise its back ends, once per process.

    Returns the callback: it is freed with its last reference, and the cache holds one.
    """
    callback = lib.llama_log_callback(_log)
    lib.llama_log_set(callback, None)
    lib.llama_backend_init()
    return callback


def _log(level: int, text: bytes, _data: object) -> None:
    # Continuation lines carry no level of their own; they belong to information we do not show.
    if level not in (LOG_WARN, LOG_ERROR):
        return
    line = text.decode("utf-8", "replace").rstrip()
    severity = logging.ERROR if level == LOG_ERROR else logging.WARNING
    # Said of every Gemma file at every load; llama.cpp has mended it by the time it says so.
    if CONTROL_LOOKING in line:
        severity = logging.DEBUG
    logger.log(severity, "llama.cpp: %s", line)
