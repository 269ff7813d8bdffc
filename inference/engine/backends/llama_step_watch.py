"""Step watch of llama.cpp on a CPU: its abort callback, in C and linked into ggml (``tools/llama/step_watch.cpp``).

As a callback of Python it would take the interpreter's lock after every node of the graph. Without the C function in
the installed build, or with all layers on a GPU, nothing is seen of a step.
"""

import ctypes
import logging

from inference.engine.backends import llama_cpp_api as lib
from inference.engine.backends.step_watch import NoStepWatch, StepWatch

log = logging.getLogger(__name__)

SYMBOL = "gemma_step_node_done"


class _Shared(ctypes.Structure):
    """Same layout as in ``step_watch.cpp``."""

    _fields_ = (("n_nodes", ctypes.c_uint64), ("aborts", ctypes.c_int32))


class LlamaStepWatch:
    """Must outlive the context that it was attached to."""

    counts = True

    def __init__(self) -> None:
        self._shared = _Shared()

    def attach(self, context: int) -> bool:
        """Register the callback with a context; False when the installed build does not have it."""
        # Also finds what the library itself links to.
        function = getattr(lib._lib, SYMBOL, None)
        if function is None:
            return False
        callback = ctypes.cast(function, lib.ggml_abort_callback)
        lib.llama_set_abort_callback(context, callback, ctypes.addressof(self._shared))
        return True

    @property
    def n_done(self) -> int:
        return int(self._shared.n_nodes)

    def abort(self) -> None:
        self._shared.aborts = 1

    def reset(self) -> None:
        self._shared.aborts = 0


def watch_steps(context: int, *, on_cpu: bool) -> StepWatch:
    """Return a watch of the context's steps; one that sees nothing where they are not computed by the CPU alone."""
    if not on_cpu:
        return NoStepWatch()
    watch = LlamaStepWatch()
    if watch.attach(context):
        return watch
    log.info("steps are judged by their estimated time, llama-cpp-python was built without name=%s", SYMBOL)
    return NoStepWatch()
