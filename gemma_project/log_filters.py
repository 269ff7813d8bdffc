"""What is not worth a line in the log."""

import logging
from http import HTTPStatus


class UnexpectedOnly(logging.Filter):
    """Drops what is an answer and no fault: a refusal that may be retried (503), a caller's time that is over (504)."""

    answers = frozenset({HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})

    def filter(self, record: logging.LogRecord) -> bool:
        return getattr(record, "status_code", None) not in self.answers
