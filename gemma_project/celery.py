"""The Celery application. Tasks are found in ``chat/services/tasks.py`` and ``inference/worker/tasks.py``."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gemma_project.settings")

app = Celery("gemma_project")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["chat.services", "inference.worker"])
