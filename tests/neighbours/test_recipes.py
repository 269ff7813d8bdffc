"""The recipes of docs/sharing.md: ComfyUI's node with stand-ins of its modules, and the units' commands as printed."""

import importlib
import re
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from inference.gpu.bridge.__main__ import _parser
from inference.gpu.bridge.command import is_freeze
from inference.gpu.sdk import tenant as tenant_module
from inference.gpu.sdk.tenant import GpuTenant
from tests.neighbours.coordinator import Wire
from tests.neighbours.lending import acquire, give_back, wait_for

pytestmark = pytest.mark.django_db(transaction=True)
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "sharing.md").read_text(encoding="utf-8")


class Comfy:
    """The parts of ComfyUI that the node touches."""

    def __init__(self) -> None:
        self.n_models = 2
        self.n_emptied = 0
        self.is_interrupted = False
        self.done: list[str] = []
        self.memory = ModuleType("comfy.model_management")
        self.memory.__dict__.update(
            unload_all_models=self._unload, soft_empty_cache=self._empty, interrupt_current_processing=self._interrupt
        )
        comfy = self

        class PromptExecutor:
            def execute(self, prompt: str, prompt_id: str, extra_data: object = None, outputs: object = ()) -> None:
                """As there: a step after the other, each of which looks whether it was interrupted."""
                comfy.n_models = 2
                comfy.is_interrupted = False
                for _ in range(int(prompt)):
                    assert comfy.n_models, "a step without a model"
                    if comfy.is_interrupted:
                        comfy.done.append(f"{prompt_id} interrupted")
                        return
                    time.sleep(0.02)
                comfy.done.append(prompt_id)

        self.execution = ModuleType("execution")
        self.execution.__dict__["PromptExecutor"] = PromptExecutor
        self.executor = PromptExecutor

    def modules(self) -> dict[str, ModuleType]:
        package = ModuleType("comfy")
        package.__dict__["model_management"] = self.memory
        return {"comfy": package, "comfy.model_management": self.memory, "execution": self.execution}

    def queue(self, n_steps: int, prompt_id: str) -> threading.Thread:
        """Run a prompt as ComfyUI's own thread does."""
        thread = threading.Thread(target=self.executor().execute, args=(str(n_steps), prompt_id))
        thread.start()
        return thread

    def _unload(self) -> None:
        self.n_models = 0

    def _empty(self) -> None:
        self.n_emptied += 1

    def _interrupt(self) -> None:
        self.is_interrupted = True


@pytest.fixture
def comfy(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Comfy]]:
    """Loads the node as ComfyUI does, in a process of its own there."""
    tenants: list[GpuTenant] = []
    monkeypatch.setattr("atexit.register", lambda _, *arguments: None)
    path = list(sys.path)
    made = tenant_module.gpu_tenant

    def with_our_redis(*arguments: Any, **options: Any) -> GpuTenant:  # noqa: ANN401
        tenant = made(*arguments, **options, redis_url="redis://127.0.0.1:9")
        tenant._redis = tenant._announcer._redis = tenant._replies._redis = wire
        tenants.append(tenant)
        return tenant

    monkeypatch.setattr("inference.gpu.tenant.gpu_tenant", with_our_redis)

    def load(interrupt_secs: str = "") -> Comfy:
        monkeypatch.setenv("GEMMA_INTERRUPT_SECS", interrupt_secs)
        stand_in = Comfy()
        for name, module in stand_in.modules().items():
            monkeypatch.setitem(sys.modules, name, module)
        sys.modules.pop("examples.comfyui_node", None)
        node = importlib.import_module("examples.comfyui_node")
        assert node.NODE_CLASS_MAPPINGS == {}  # without the name ComfyUI does not load it
        wait_for(lambda: tenants[-1].is_allowed)
        return stand_in

    yield load
    for tenant in tenants:
        tenant.__exit__(None, None, None)
    sys.path[:] = path
    sys.modules.pop("examples.comfyui_node", None)


class TestComfy:
    def test_its_models_leave_between_two_prompts(self, wire: Wire, comfy: Callable[..., Comfy]) -> None:
        ui = comfy()
        ui.queue(3, "first").join()
        assert ui.n_models == 2
        assert acquire(wire) is not None
        assert (ui.n_models, ui.n_emptied) == (0, 1)
        second = ui.queue(3, "second")
        time.sleep(0.5)
        assert ui.done == ["first"]  # the second waits
        give_back(wire)
        second.join(10)
        assert ui.done == ["first", "second"]

    def test_a_running_prompt_is_waited_for(self, wire: Wire, comfy: Callable[..., Comfy]) -> None:
        ui = comfy()
        running = ui.queue(60, "long")
        time.sleep(0.1)
        assert acquire(wire) is not None
        assert ui.done == ["long"]
        assert ui.n_models == 0
        running.join()

    def test_it_is_interrupted_where_that_is_wanted(self, wire: Wire, comfy: Callable[..., Comfy]) -> None:
        ui = comfy("0.5")
        ui.queue(20, "short").join()
        running = ui.queue(2_000, "long")
        time.sleep(0.7)
        assert ui.done == ["short"]  # nobody waits: it may take as long as it likes
        secs = acquire(wire)
        assert secs is not None
        assert 0.4 < secs < 4.0
        assert ui.done == ["short", "long interrupted"]
        running.join()

    def test_a_prompt_that_fails_gives_the_gpu_back(self, wire: Wire, comfy: Callable[..., Comfy]) -> None:
        ui = comfy()
        with pytest.raises(ValueError, match="invalid literal"):
            ui.executor().execute("no number", "broken")
        assert acquire(wire) is not None


def printed_commands() -> list[list[str]]:
    """The bridge's command lines in the page, and in the units there."""
    text = PAGE.replace("\\\n", " ")
    lines = re.findall(r"^.*(?:python|bin/python) -m inference\.gpu\.bridge (.+)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def test_every_command_in_the_page_is_one() -> None:
    commands = printed_commands()
    assert {command[0] for command in commands} == {"ollama", "command"}
    for command in commands:
        options = _parser().parse_args(command)
        assert options.program == "ollama" or options.check or not is_freeze(options.pause)


def test_every_python_block_in_the_page_compiles() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        compile(block, "docs/sharing.md", "exec")
