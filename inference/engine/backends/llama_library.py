"""The llama.cpp library in this process: its start, and its log as ours."""

import logging
from functools import cache
from pathlib import Path

import llama_cpp.llama_cpp as lib

logger = logging.getLogger(__name__)

LOG_WARN, LOG_ERROR, LOG_CONTINUE = 3, 4, 5
CONTROL_LOOKING = "control-looking token"


def has_cuda() -> bool:
    """Whether the installed build can use an NVIDIA card; its files say so, without loading what would look at one."""
    return any((Path(lib.__file__).parent / "lib").glob("*ggml-cuda*"))


@cache
def start_library() -> None:
    """Once per process: send llama.cpp's log to ours, warnings and errors only, and initialise its back ends."""
    lib.llama_log_set(_log, None)
    lib.llama_backend_init()


@lib.llama_log_callback  # type: ignore[untyped-decorator]
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
