"""Registers the system checks with Django."""

from django.apps import AppConfig

from gemma_project import checks

__all__ = ["GemmaProjectConfig", "checks"]


class GemmaProjectConfig(AppConfig):
    name = "gemma_project"
