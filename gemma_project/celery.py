"""The Celery application. Tasks are found in ``chat/services/tasks.py`` and ``inference/worker/tasks.py``."""

import os

from celery import Celery
from celery.backends.base import DisabledBackend

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gemma_project.settings")


class NoResults(DisabledBackend):
    """Nobody asks for results. One object for all threads: Celery would look through all packages for each anew."""

    thread_safe = True


app = Celery("gemma_project")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["chat.services", "inference.worker"])
