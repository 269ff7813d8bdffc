"""Registers the system checks with Django, and the project's site of the admin."""

from django.apps import AppConfig
from django.contrib.admin import apps as admin_apps

from gemma_project import checks

__all__ = ["GemmaAdminConfig", "GemmaProjectConfig", "checks"]


class GemmaProjectConfig(AppConfig):
    name = "gemma_project"
    default = True  # of the two here


class GemmaAdminConfig(admin_apps.AdminConfig):
    default = False
    default_site = "gemma_project.admin_site.GemmaAdminSite"
