"""Fixtures of the whole suite. The private environment is made here, before pytest-django reads the settings."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from tests import private_environment

TEST_DIRECTORY = private_environment.enter()
TESTS = Path(__file__).parent
# What takes longest, so that no worker begins it when the others are about to end.
LONG_FILES = ("project/test_serve.py",)

import django  # noqa: E402  the settings read the environment made above
import pytest  # noqa: E402
import redis  # noqa: E402
from django.conf import settings  # noqa: E402

django.setup()

from inference.config.default_model import ensure_default_model  # noqa: E402
from inference.gpu.coordinator.resident_memory import MEMORY  # noqa: E402
from tests.live_stack import LiveStack  # noqa: E402
from tools.install_llama import cache_folder  # noqa: E402


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Workers inherit this process's variables, and with this one they would read its settings as their own."""
    del os.environ["DJANGO_SETTINGS_MODULE"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first. Workers get whole files in this order, and each file's order stays."""
    ranks = {TESTS / name: rank for rank, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.fixture
def redis_client() -> Iterator["redis.Redis[str]"]:
    """A client of the test process's own Valkey, emptied before the test."""
    client = redis.Redis.from_url(settings.REDIS_URL, decode_responses=True)
    client.flushall()
    MEMORY.forget()  # what it loses by this is no fault
    yield client
    client.close()


@pytest.fixture(scope="session")
def model_path() -> Path:
    """The real default model, put together once per machine."""
    path = cache_folder().parent / "models" / settings.DEFAULT_MODEL_NAME
    ensure_default_model(path, show_progress=False)
    return path


@pytest.fixture
def live_stack(request: pytest.FixtureRequest) -> Iterator[Callable[..., LiveStack]]:
    """Makes running services: ``live_stack(backend="fake"|"llama", start=True, GEMMA_PARALLEL="2", ...)``."""
    stacks: list[LiveStack] = []

    def make(*, backend: str = "fake", start: bool = True, **environment: str) -> LiveStack:
        if backend == "llama":
            environment.setdefault("GEMMA_MODEL_PATH", str(request.getfixturevalue("model_path")))
        stack = LiveStack(backend=backend, environment=environment)
        stacks.append(stack)
        if start:
            stack.start()
        return stack

    yield make
    for stack in stacks:
        stack.clean_up()
