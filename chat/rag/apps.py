"""Django application of the built-in memory store; separate, so that its tables and migrations are too."""

from django.apps import AppConfig


class RagConfig(AppConfig):
    name = "chat.rag"
    label = "memory"
    default_auto_field = "django.db.models.BigAutoField"
