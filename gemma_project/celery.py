"""The Celery application. Tasks are found in ``chat/services/tasks.py`` and ``inference/worker/tasks.py``."""

import os

from celery import Celery

from compat.kombu_redis import drop_foreign_messages

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gemma_project.settings")
drop_foreign_messages()

app = Celery("gemma_project")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["chat.services", "inference.worker"])
