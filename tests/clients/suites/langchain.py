"""LangChain's tests of a chat model against a running service: ``python -m tests.clients.suites.langchain PYTHON``.

INSTRUCT_MODEL_FILE names a model that calls tools; without it the answers are scripted, and tools are not tested.
Further arguments are pytest's.
"""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.clients.suites import cases
from tests.live_stack import LiveStack, running_stack

TESTS = Path(__file__).parent / "plugin" / "langchain_chat.py"
ENVIRONMENT = {"MODEL_ALIASES": "*", "GEMMA_CONTEXT_SIZE": "8192"}
# The suite sends no system prompt and expects its models to call tools; ours asks for an answer at once.
SYSTEM_PROMPT = "You are a helpful assistant."
MODEL_FILE = os.environ.get("INSTRUCT_MODEL_FILE", "")
# Their answers have to call or to fill something that the text of the test asks for.
NEED_A_MODEL = "not tool and not structured and not json and not agent"


def run(python: str, stack: LiveStack, report: Path, *arguments: str) -> dict[str, str]:
    # Copied, so that no configuration of this project's tests counts.
    copy = report.parent / TESTS.name
    copy.write_bytes(TESTS.read_bytes())
    subprocess.run(
        [
            *(python, "-m", "pytest", "-q", "--tb=short", "-o", "asyncio_mode=auto", f"--rootdir={report.parent}"),
            *(f"--junitxml={report}", str(copy), *arguments),
        ],
        cwd=report.parent,
        env={**stack.environment, "CHAT_URL": stack.url, "LANGSMITH_TRACING": "false"},
        check=False,
    )
    return cases.outcomes(report)


def main(python: str, chosen: list[str]) -> int:
    arguments = chosen or ([] if MODEL_FILE else ["-k", NEED_A_MODEL])
    model = {"GEMMA_MODEL_PATH": MODEL_FILE, "GEMMA_SYSTEM_PROMPT": SYSTEM_PROMPT} if MODEL_FILE else {}
    with (
        TemporaryDirectory() as scratch,
        running_stack("llama" if MODEL_FILE else "fake", **ENVIRONMENT | model) as stack,
    ):
        results = run(python, stack, Path(scratch) / "report.xml", *arguments)
    exceptions = cases.left_out(cases.FOLDER / "langchain.toml") if MODEL_FILE else []
    return cases.verdict("LangChain's ChatModelIntegrationTests, ChatOpenAI", results, exceptions)


if __name__ == "__main__":
    sys.exit(main(str(Path(sys.argv[1]).absolute()), sys.argv[2:]))
