"""Assignment of active generations to runner processes, and their migration between the CPU and the GPU.

Dispatcher (thread, queue) -> EventLoop -> ActiveGenerations, RunnerSlot (one process each), GpuResidency (GPU sessions)
"""

from inference.dispatch.dispatcher import Dispatcher

__all__ = ["Dispatcher"]
