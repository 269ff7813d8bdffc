"""What is not worth a line in the log."""

import logging
from http import HTTPStatus


class UnexpectedOnly(logging.Filter):
    """Drops refusals that the caller is told to retry (503): they are answers, not faults."""

    def filter(self, record: logging.LogRecord) -> bool:
        return getattr(record, "status_code", None) != HTTPStatus.SERVICE_UNAVAILABLE
