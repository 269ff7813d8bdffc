"""Registers the system checks with Django, and the project's site of the admin."""

import sys

from django.apps import AppConfig
from django.contrib.admin import apps as admin_apps

from gemma_project import checks

__all__ = ["GemmaAdminConfig", "GemmaProjectConfig", "checks"]

# They begin an answer, or show a state, sooner than the admin's pages are imported.
COMMANDS_WITHOUT_PAGES = {"ask", "status"}


class GemmaProjectConfig(AppConfig):
    name = "gemma_project"
    default = True  # of the two here


class GemmaAdminConfig(admin_apps.AdminConfig):
    default = False
    default_site = "gemma_project.admin_site.GemmaAdminSite"

    def ready(self) -> None:
        if set(sys.argv[1:2]) & COMMANDS_WITHOUT_PAGES:
            admin_apps.SimpleAdminConfig.ready(self)  # that of AdminConfig imports all pages
        else:
            super().ready()
