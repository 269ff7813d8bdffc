"""JSON and MessagePack can be nested so deeply that their parsers raise RecursionError, which is no ValueError.

Each call of a parser stands in a ``try`` that names it, or has a reason here.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("chat", "inference", "gemma_project", "compat")
# Functions that leave it to their callers, or read only what this service has written itself.
EXEMPT = {
    "chat/batch/inputs.py:_row": "the caller records it as the error of the line",
    "chat/prompting/jinja_sandbox.py:render": "the answer of the child, whose form no template decides",
    "chat/prompting/jinja_sandbox.py:main": "the job of the parent",
    "inference/engine/protocol/frames.py:decode_start": "frames between a worker and its own runner",
    "inference/engine/protocol/frames.py:decode_to_runner": "frames between a worker and its own runner",
    "inference/engine/protocol/frames.py:decode_from_runner": "frames between a worker and its own runner",
    "inference/engine/sampling/logprob_records.py:unpack_logprobs": "a column that only the worker writes",
    "inference/engine/text/detokenizer.py:push": "a decoder of UTF-8",
    "inference/runtime/grammar_check.py:_checked": "the answer of the child, a text",
    "inference/runtime/grammar_check.py:main": "the job of the parent, a text",
    "inference/token_stream/redis_log.py:decode": "entries that only the worker writes, one level deep",
    "inference/worker/gpu_commands.py:execute": "the thread that listens logs every error and goes on",
}
PARSERS = ("json.loads", "json.load", "msgspec.json.decode", "msgspec.msgpack.decode")


def is_parser(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    return name in PARSERS or (name.endswith(".decode") and name.split(".")[-2] in DECODERS)


DECODERS = ("decoder", "_decoder", "_start", "_to_runner", "_from_runner")


def unguarded(tree: ast.AST, function: str = "", *, is_guarded: bool = False) -> Iterator[str]:
    """Yield the function of each call that no ``try`` or ``suppress`` with RecursionError encloses."""
    for node in ast.iter_child_nodes(tree):
        name = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else function
        guards = is_guarded
        if isinstance(node, ast.Try):
            guards |= any("RecursionError" in ast.unparse(handler.type) for handler in node.handlers if handler.type)
        if isinstance(node, ast.With):
            guards |= any("RecursionError" in ast.unparse(item.context_expr) for item in node.items)
        if isinstance(node, ast.Call) and is_parser(node) and not guards:
            yield name
        yield from unguarded(node, name, is_guarded=guards)


def test_every_parser_of_nested_data_is_guarded() -> None:
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    sources = {path: source for path in paths if "decode(" in (source := path.read_text()) or "json.load" in source}
    calls = {
        f"{path.relative_to(ROOT)}:{name}" for path, source in sources.items() for name in unguarded(ast.parse(source))
    }
    assert sorted(calls) == sorted(EXEMPT), "catch RecursionError beside ValueError, or give a reason in EXEMPT"


def test_the_walk_sees_what_it_looks_for() -> None:
    source = "def f():\n    try:\n        json.loads(x)\n    except ValueError:\n        self._decoder.decode(y)\n"
    assert list(unguarded(ast.parse(source))) == ["f", "f"]
    assert list(unguarded(ast.parse(source.replace("ValueError", "(ValueError, RecursionError)")))) == []
