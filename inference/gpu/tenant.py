"""Public import path of the tenant library; the implementation is in ``inference.gpu.sdk``."""

from inference.gpu.sdk.client import GpuRefused
from inference.gpu.sdk.tenant import GpuTenant, gpu_tenant

__all__ = ["GpuRefused", "GpuTenant", "gpu_tenant"]
