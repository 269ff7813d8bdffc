"""Tenants of the GPU for programs that cannot be changed: ``python -m inference.gpu.bridge``."""
