"""A service with the real model, shared by all tests of this folder: starting it takes most of the time."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live_stack import LiveStack, running_stack


@pytest.fixture(scope="session")
def real_stack(model_path: Path) -> Iterator[LiveStack]:
    with running_stack("llama", GEMMA_MODEL_PATH=str(model_path), GEMMA_CONTEXT_SIZE="16384") as stack:
        yield stack
