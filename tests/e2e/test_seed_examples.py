"""The README's Python examples, run as they stand against a real service with the real model."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live_stack import LiveStack

README = Path(__file__).resolve().parent.parent.parent / "README.md"
ADDRESS = "http://localhost:8001"
EVERY = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
# Examples with other clients: tests/clients has tests of their routes.
OTHER_CLIENTS = ("from openai import", "from langchain_openai import", "from anthropic import")
EXAMPLES = [code for code in EVERY if ADDRESS in code and not any(client in code for client in OTHER_CLIENTS)]


def test_the_readme_shows_the_three_examples() -> None:
    questions = ["Explain quantum computing", "What did Sarah say about the deadline?", "Tell me a story"]
    assert [question for question in questions if not any(question in code for code in EXAMPLES)] == []
    assert len(EXAMPLES) == 3


def test_the_others_name_what_there_is() -> None:
    others = [code for code in EVERY if ADDRESS not in code]
    assert len(others) == 3  # two go on from the client of the example before, one is a tenant of the GPU
    for code in others:
        compile(code, "README.md", "exec")
        imports = [line for line in code.splitlines() if line.startswith(("import ", "from "))]
        exec("\n".join(imports), {})  # noqa: S102  our own text


@pytest.mark.real_model
@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_prints_real_text(number: int, real_stack: LiveStack) -> None:
    code = EXAMPLES[number]
    # Nothing but the port is changed.
    # One of them goes on from the imports of the one before.
    session = f"import httpx\n{code.replace(ADDRESS, real_stack.url)}"
    run = subprocess.run([sys.executable, "-c", session], capture_output=True, text=True, timeout=110)
    assert run.returncode == 0, run.stderr
    assert len(run.stdout.split()) >= 3, f"hardly a text: {run.stdout!r}"
    assert "\ufffd" not in run.stdout
