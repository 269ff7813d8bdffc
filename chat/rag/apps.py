"""The Django application of memories: an app of its own, so that its tables and migrations are its own."""

from django.apps import AppConfig


class RagConfig(AppConfig):
    name = "chat.rag"
    label = "memory"
    default_auto_field = "django.db.models.BigAutoField"
