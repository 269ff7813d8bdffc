"""The built-in coordinator, which grants leases of the GPU when no outside coordinator is configured.

The row of `GpuLedger` decides who holds the GPU; Redis keeps expiry, wait queue and signals, which may be lost.
"""
