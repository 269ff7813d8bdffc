"""Settings, routing, processes: everything about running the service, nothing about chats or models."""

from gemma_project.celery import app as celery_app

__all__ = ["celery_app"]
