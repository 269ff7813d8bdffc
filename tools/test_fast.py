"""Run the tests that need no llama.cpp, no other process and no waiting: ``make test-fast``.

PATHS alone chooses them. The number of tests left out is printed. Standard library only.
"""

import ast
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent / "tests"
PATHS = (
    "api/test_bodies.py",
    "api/test_error_rendering.py",
    "api/test_identity.py",
    "api/test_openai_bodies.py",
    "api/test_service_token.py",
    "api/test_tool_bodies.py",
    "chat/prompting/test_context_window.py",
    "chat/prompting/test_source_block.py",
    "chat/prompting/test_system_prompt.py",
    "chat/rag/test_sources.py",
    "chat/services/test_query_rewriting.py",
    "chat/services/test_validation.py",
    "chat/test_answers.py",
    "chat/test_errors.py",
    "chat/tool_calling/test_call_grammar.py",
    "chat/tool_calling/test_call_parser.py",
    "commands/test_batch_inputs.py",
    "compat/test_django_http.py",
    "engine/test_citation_filter.py",
    "engine/test_detokenizer.py",
    "engine/test_gguf_header.py",
    "engine/test_memory_estimate.py",
    "engine/test_radix_tree.py",
    "gpu/test_nvml.py",
    "inference/dispatch/test_gpu_state.py",
    "inference/runtime/test_redis_client.py",
    "inference/token_stream/test_redis_log.py",
    "project/test_broker_url.py",
    "project/test_checks.py",
    "project/test_documents.py",
    "project/test_environment.py",
    "project/test_log_filters.py",
    "project/test_secret_files.py",
    "rag/test_captions.py",
    "rag/test_import_formats.py",
    "rag/test_time_expressions.py",
)


def main() -> int:
    chosen = {file for path in PATHS for file in test_files(TESTS / path)}
    left_out = [file for file in test_files(TESTS) if file not in chosen]
    status = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "--quiet",
            "--numprocesses=2",
            "--dist=loadfile",
            "-p",
            "no:cacheprovider",
            *(str(TESTS / path) for path in PATHS),
        ],
        cwd=TESTS.parent,
        check=False,
    ).returncode
    n_functions = sum(count_tests(file) for file in left_out)
    print(f"left out: {n_functions} test functions in {len(left_out)} files (`make test` runs everything)")
    return status


def test_files(path: Path) -> list[Path]:
    """Return the test files of a folder, or the file itself. Raises FileNotFoundError when there is neither."""
    if path.is_file():
        return [path]
    files = sorted(path.rglob("test_*.py"))
    if not files:
        raise FileNotFoundError(f"{path}: named in {__file__}, but there are no tests")
    return files


def count_tests(file: Path) -> int:
    """Count the test functions of a file without importing it; the cases of a parametrised one count once."""
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    functions = (node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return sum(function.name.startswith("test_") for function in functions)


if __name__ == "__main__":
    sys.exit(main())
