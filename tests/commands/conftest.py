"""A running service with scripted answers for all tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands.driver import Driver
from tests.live_stack import LiveStack, running_stack


@pytest.fixture(scope="package")
def shared_stack() -> Iterator[LiveStack]:
    with running_stack(GEMMA_PARALLEL="2", LOG_LEVEL="warning") as stack:
        yield stack


@pytest.fixture
def driver(shared_stack: LiveStack, tmp_path: Path) -> Iterator[Driver]:
    """The commands against the shared service, as a new owner in a folder of its own."""
    driver = Driver(shared_stack, tmp_path)
    yield driver
    driver.clean_up()
