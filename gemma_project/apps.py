"""Registers the system checks with Django, and the project's site of the admin."""

from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig

from gemma_project import checks

__all__ = ["GemmaAdminConfig", "GemmaProjectConfig", "checks"]


class GemmaProjectConfig(AppConfig):
    name = "gemma_project"
    default = True  # of the two here


class GemmaAdminConfig(AdminConfig):
    default = False
    default_site = "gemma_project.admin_site.GemmaAdminSite"
