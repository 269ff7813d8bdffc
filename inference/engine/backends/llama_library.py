"""Start of the llama.cpp library in this process, with its log sent to ours."""

import logging
from functools import cache

from inference.engine.backends import llama_cpp_api as lib

log = logging.getLogger(__name__)

LOG_WARN, LOG_ERROR, LOG_CONTINUE = 3, 4, 5
# Logged for every Gemma file at every load, after llama.cpp has corrected the token itself; and at every step that was
# ended early on request (1 is GGML_STATUS_ABORTED).
EXPECTED = ("control-looking token", "removing memory module entries", "compute status: 1")


def has_cuda() -> bool:
    """Return whether the installed build has CUDA, from its file names: loading it would touch a GPU."""
    return any(lib.library_folder().glob("*ggml-cuda*"))


@cache
def start_library() -> object:
    """Send llama.cpp's warnings and errors to our log and initialise its back ends, once per process.

    Returns the callback: it is freed with its last reference, and the cache holds one.
    """
    callback = lib.llama_log_callback(_forward)
    lib.llama_log_set(callback, None)
    lib.llama_backend_init()
    return callback


def _forward(level: int, text: bytes, _data: object) -> None:
    # Continuation lines have no level of their own and belong to info messages, which are dropped.
    if level not in (LOG_WARN, LOG_ERROR):
        return
    line = text.decode("utf-8", "replace").rstrip()
    severity = logging.ERROR if level == LOG_ERROR else logging.WARNING
    if any(text_part in line for text_part in EXPECTED):
        severity = logging.DEBUG
    log.log(severity, "llama.cpp message=%s", line)
