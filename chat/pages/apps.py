"""The Django application of the pages: their templates, static files and translations."""

from django.apps import AppConfig


class PagesConfig(AppConfig):
    name = "chat.pages"
