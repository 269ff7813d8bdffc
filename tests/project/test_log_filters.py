"""What Django logs of an answer with an error status."""

import logging

import pytest

from gemma_project.log_filters import UnexpectedOnly


@pytest.mark.parametrize(("status", "is_logged"), [(500, True), (503, False), (504, False), (None, True)])
def test_answers_are_no_faults(status: int | None, is_logged: bool) -> None:
    record = logging.makeLogRecord({"msg": "/chat"} | ({} if status is None else {"status_code": status}))
    assert UnexpectedOnly().filter(record) is is_logged
