"""Fixtures of the engine's tests: the real model's vocabulary and backend, loaded once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from inference.engine.backends.llama_backend import LlamaBackend
from inference.engine.backends.vocabulary import Vocabulary, open_vocabulary
from inference.engine.config import EngineConfig, FlashAttention
from tests.engine.harness import Harness

REAL_CELLS = 4096
REAL_SLOTS = 8


@pytest.fixture(scope="session")
def real_config(model_path: Path) -> EngineConfig:
    """Flash attention off: then results are comparable to the last bit. One thread: on a machine that is busy with
    other tests, two threads spend most of their time waiting for each other."""
    return EngineConfig(
        model_path=model_path,
        context_size=REAL_CELLS,
        batch_size=256,
        threads=1,
        flash_attention=FlashAttention.OFF,
    )


@pytest.fixture(scope="session")
def real_vocabulary(real_config: EngineConfig) -> Vocabulary:
    return open_vocabulary(real_config)


@pytest.fixture(scope="session")
def loaded_backend(real_config: EngineConfig) -> Iterator[LlamaBackend]:
    backend = LlamaBackend(real_config, n_slots=REAL_SLOTS)
    yield backend
    backend.close()


@pytest.fixture
def real_backend(loaded_backend: LlamaBackend) -> LlamaBackend:
    """The one loaded backend, with nothing left in its memory by the test before."""
    for slot in range(REAL_SLOTS):
        loaded_backend.remove(slot)
    return loaded_backend


@pytest.fixture(params=["fake", pytest.param("llama", marks=pytest.mark.real_model)])
def harness(request: pytest.FixtureRequest) -> Harness:
    """A loop over either backend: tests with it assert the contract of both."""
    if request.param == "fake":
        return Harness.fake()
    return Harness(request.getfixturevalue("real_backend"), request.getfixturevalue("real_config"))
