"""Check of grammars without a model: what is wrong with one, and in which part of a JSON Schema.

Compiles for a vocabulary of single bytes, which needs neither a model file nor memory. The compiler recurses along
references, where a stack that overflows ends the process, and its own bounds leave out some of its work: all but short
grammars are compiled in a child process first. Never raises.
"""

import json
import re
import resource
import signal
import sys
import time
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from inference.engine.grammar.limits import PARSER_LIMITS
from inference.engine.grammar.schema_parts import JsonSchema, Path, part_at, parts_of
from inference.engine.grammar.sources import from_json_schema
from inference.runtime.bounded_child import BoundedChild, ChildEnded

# Of so few bytes the worst that was tried takes 0.15 s and a tenth of a thread's stack.
SHORT_BYTES = 1024
CPU_SECS = 1.0
WALL_SECS = 20.0  # a loaded machine may give the child little of its CPU seconds
MEMORY_BYTES = 1024 * 1024 * 1024
MAX_STACK_BYTES = 8 * 1024 * 1024
THREAD_STACK_BYTES = 2 * 1024 * 1024  # the C library's choice where the limit is none

MAX_MESSAGE_CHARS = 200
LOCATING_SECS = 0.3  # to find the wrong part; the smallest one found until then is named
REMEMBERED_CHECKS = 256

_PARSE_ERROR = re.compile(r"^error: (.+)$", re.MULTILINE)


class _ByteVocabulary:
    """The 256 bytes and an end, as llguidance reads a vocabulary. No token has a name, so that no grammar names one."""

    eos_token_id = 256
    bos_token_id = None
    tokens = (*(bytes([byte]) for byte in range(256)), b"")
    special_token_ids = (256,)

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text.encode("utf-8", "replace") if isinstance(text, str) else text)


@lru_cache(maxsize=1)
def byte_tokenizer() -> LLTokenizer:
    return LLTokenizer(TokenizerWrapper(_ByteVocabulary()), n_vocab=257, eos_token=256, slices=[])


def grammar_problem(grammar: str) -> str:
    """Return in one line why no text can be generated with ``grammar``; empty if one can."""
    try:
        return _checked(grammar)
    except _CheckUnfinished:
        return "the check was not finished in time"


class _CheckUnfinished(Exception):
    """The machine was too busy to check a grammar, which says nothing about it."""


@lru_cache(maxsize=REMEMBERED_CHECKS)
def _checked(grammar: str) -> str:
    if len(grammar) <= SHORT_BYTES:
        return compile_problem(grammar)
    try:
        answer = _child.answer(json.dumps(grammar).encode("ascii"), wall_secs=WALL_SECS)
    except ChildEnded as ended:
        if ended.took_too_long:
            raise _CheckUnfinished from ended
        return _reason_of(ended)
    return str(json.loads(answer))


def _reason_of(ended: ChildEnded) -> str:
    if ended.returncode == -signal.SIGPROF:
        return "it takes too long to compile"
    if ended.returncode in (-signal.SIGSEGV, -signal.SIGBUS):
        return "its references or terminals are nested too deeply"
    return "it needs too much memory to compile"


def compile_problem(grammar: str) -> str:
    """Do the work of ``grammar_problem`` in this process."""
    matcher = LLMatcher(byte_tokenizer(), grammar, log_level=0, limits=PARSER_LIMITS)
    if not matcher.is_error():
        matcher.compute_bitmask()  # finds grammars without any text
    if not matcher.is_error():
        return ""
    message = matcher.get_error()
    if message.startswith("NoExtension"):
        return "no text satisfies it"
    parse_error = _PARSE_ERROR.search(message)
    line = parse_error[1] if parse_error else message.removesuffix("<non-verbose/>").strip().partition("\n")[0]
    return line if len(line) <= MAX_MESSAGE_CHARS else f"{line[:MAX_MESSAGE_CHARS]}…"


def schema_problem(schema: JsonSchema) -> tuple[Path, str] | None:
    """Return the path of the smallest part of ``schema`` that cannot be compiled, and the reason; None if all can."""
    message = grammar_problem(from_json_schema(schema))
    if not message:
        return None
    definitions = {"root": _moved(schema)}
    path: Path = ()
    ends_at = time.monotonic() + LOCATING_SECS
    parts = parts_of(schema)
    while (steps := next(parts, None)) is not None and time.monotonic() < ends_at:
        part = (*path, *steps)
        # The part as a schema of its own, which references into the whole still reach.
        pointer = "/".join(quote(str(step).replace("~", "~0").replace("/", "~1"), safe="~") for step in part)
        part_schema = {"$ref": f"#/$defs/root/{pointer}", "$defs": definitions}
        part_message = grammar_problem(from_json_schema(part_schema))
        if part_message:
            path, message = part, part_message
            parts = parts_of(part_at(schema, path))
    return path, message


def _moved(value: Any) -> Any:  # noqa: ANN401  a JSON value
    """Return a schema whose local references point below ``#/$defs/root``."""
    if isinstance(value, list):
        return [_moved(member) for member in value]
    if not isinstance(value, dict):
        return value
    moved = {name: _moved(member) for name, member in value.items()}
    reference = moved.get("$ref")
    if reference == "#" or (isinstance(reference, str) and reference.startswith("#/")):
        moved["$ref"] = f"#/$defs/root{reference[1:]}"
    return moved


_child = BoundedChild(__name__)


def main() -> None:
    """Check grammars as the child process."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    # Half of a thread's: the runner, which compiles the grammar again on one of its threads, is not to overflow.
    limit, _ = resource.getrlimit(resource.RLIMIT_STACK)
    stack_bytes = THREAD_STACK_BYTES if limit == resource.RLIM_INFINITY else min(limit, MAX_STACK_BYTES)
    resource.setrlimit(resource.RLIMIT_STACK, (stack_bytes // 2, stack_bytes // 2))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    byte_tokenizer()
    # Ends with the parent, whose end of the pipe closes.
    for line in sys.stdin.buffer:
        # Its signal ends the process, within native code, too.
        signal.setitimer(signal.ITIMER_PROF, CPU_SECS)
        problem = compile_problem(json.loads(line))
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(json.dumps(problem) + "\n")
        sys.stdout.flush()
