"""A custom node of ComfyUI without nodes: its models leave the GPU while the chat has it.

    ln -s /path/to/this/folder ComfyUI/custom_nodes/gemma_gpu
    pip install redis httpx          # into ComfyUI's environment

Each prompt is one use of the GPU: it begins when the GPU is free, and the chat waits for its end (or computes on the
CPU meanwhile). With GEMMA_INTERRUPT_SECS a prompt that runs for longer once the chat waits is interrupted, as by
ComfyUI's own button; it has to be queued again. Between prompts all models are unloaded at once.
"""

import atexit
import functools
import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.model_management as memory  # type: ignore[import-not-found]
import execution  # type: ignore[import-not-found]

# This project, of which the folder of the node is a part; behind ComfyUI's own modules.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from inference.gpu.tenant import GpuTenant, gpu_tenant

log = logging.getLogger(__name__)

POLL_SECS = 0.2
INTERRUPT_SECS = float(os.environ.get("GEMMA_INTERRUPT_SECS") or 0)  # 0: never

NODE_CLASS_MAPPINGS: dict[str, type] = {}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {}


def unload() -> None:
    """Free the memory of all models; ComfyUI loads them again with the next prompt."""
    memory.unload_all_models()
    gc.collect()
    memory.soft_empty_cache()
    log.info("models unloaded, the gpu is lent")


def share(gpu: GpuTenant) -> Callable[[], None]:
    """Let each prompt use the GPU as a tenant; return a function that undoes it."""
    execute = execution.PromptExecutor.execute

    @functools.wraps(execute)
    def execute_as_tenant(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401  of any version of ComfyUI
        with gpu.use():
            ended = threading.Event()
            if INTERRUPT_SECS:
                threading.Thread(target=_interrupt, args=(gpu, ended), daemon=True).start()
            try:
                return execute(*arguments, **options)
            finally:
                ended.set()

    execution.PromptExecutor.execute = execute_as_tenant
    return lambda: setattr(execution.PromptExecutor, "execute", execute)


def _interrupt(gpu: GpuTenant, ended: threading.Event) -> None:
    """Interrupt the prompt when another session has waited for its end for INTERRUPT_SECS."""
    wanted_at: float | None = None
    while not ended.wait(POLL_SECS):
        if gpu.is_allowed:
            wanted_at = None
            continue
        wanted_at = wanted_at or time.monotonic()
        if time.monotonic() - wanted_at >= INTERRUPT_SECS:
            log.warning("prompt interrupted, the chat waits for the gpu")
            memory.interrupt_current_processing()
            return


def main() -> None:
    gpu = gpu_tenant("comfyui", on_pause=unload, on_resume=lambda: None)
    gpu.__enter__()
    atexit.register(gpu.__exit__, None, None, None)
    share(gpu)
    log.info("sharing the gpu with gemma service")


main()
