#!/usr/bin/env python
"""The command line. A variable that cannot be used ends here with its name, without a traceback."""

import os
import sys

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gemma_project.settings")
    # Celery would rename the worker's process; our own titles are what operators look for.
    os.environ.setdefault("NOSETPS", "1")
    try:
        _ = settings.INSTALLED_APPS
    except (ImproperlyConfigured, OSError) as error:
        sys.exit(f"error: {error}")
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
