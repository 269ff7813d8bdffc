"""Render a model file's Jinja template in a child process with limits on time, memory and size.

A template is untrusted code: Jinja's sandbox protects objects of the process, but does not end endless loops. The child
runs ``main`` of this module without Django; the rest is the parent's side of the pipe.
"""

import json
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from inference.runtime.bounded_child import BoundedChild, ChildEnded

MAX_TEMPLATE_CHARS = 128 * 1024
MAX_RENDERED_CHARS = 256 * 1024
CPU_SECS = 2
WALL_SECS = 20.0  # a loaded machine may give the child little of its CPU seconds
MEMORY_BYTES = 1024 * 1024 * 1024

Conversation = list[dict[str, Any]]


class TemplateUnusable(Exception):
    """The template exceeds a limit or is no valid Jinja; nothing can be rendered with it."""


@dataclass(frozen=True)
class TemplateRendering:
    """The text of one conversation, or the reason why the template refused it."""

    text: str = ""
    refusal: str = ""


def render(
    template: str,
    *,
    bos: str,
    eos: str,
    conversations: Sequence[Conversation],
    options: Mapping[str, object] | None = None,
) -> list[TemplateRendering]:
    """Render each conversation up to the start of the next answer. Raises TemplateUnusable.

    ``options`` are further variables of the template, such as ``enable_thinking``.
    """
    if len(template) > MAX_TEMPLATE_CHARS:
        raise TemplateUnusable(f"the chat template has more than {MAX_TEMPLATE_CHARS} characters")
    variables = {**(options or {}), "bos_token": bos, "eos_token": eos}
    job = {"template": template, "variables": variables, "conversations": list(conversations)}
    answer = _answer(json.dumps(job).encode("ascii"))
    return [TemplateRendering(**rendering) for rendering in json.loads(answer)]


def _answer(job: bytes) -> bytes:
    try:
        return _child.answer(job, wall_secs=WALL_SECS)
    except ChildEnded as ended:
        if ended.took_too_long:
            raise TemplateUnusable(f"the chat template took longer than {WALL_SECS:.0f} s to render") from ended
        reason = f"{ended.returncode}: {ended.last_line[:300]}"
        raise TemplateUnusable(f"rendering the chat template ended with {reason}") from ended


_child = BoundedChild(__name__)


# ---- the child ----


class GenerationTag(Extension):
    """``{% generation %}`` marks the answers for training; for rendering its body is all that counts."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _render_one(template: Template, conversation: Conversation, variables: dict[str, Any]) -> dict[str, str]:
    parts: list[str] = []
    n_chars = 0
    try:
        for part in template.generate(messages=conversation, add_generation_prompt=True, **variables):
            n_chars += len(part)
            if n_chars > MAX_RENDERED_CHARS:
                sys.exit(f"more than {MAX_RENDERED_CHARS} characters")
            parts.append(part)
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        # A refusal (of a system message, of an order of roles) is a result, not a failure.
        return {"refusal": str(error) or type(error).__name__}
    return {"text": "".join(parts)}


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Serve templates, which are written for Transformers' filter."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@lru_cache(maxsize=8)
def _compiled(environment: ImmutableSandboxedEnvironment, source: str) -> Template:
    return environment.from_string(source)


def main() -> None:
    """Render templates as the child process."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))

    def raise_exception(message: str) -> NoReturn:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, GenerationTag]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = time.strftime
    # Ends with the parent, whose end of the pipe closes.
    for line in sys.stdin.buffer:
        job = json.loads(line)
        # Before the template is even parsed: parsing runs constant expressions.
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = int(used.ru_utime + used.ru_stime) + CPU_SECS
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        template = _compiled(environment, job["template"])
        renderings = [_render_one(template, texts, job["variables"]) for texts in job["conversations"]]
        sys.stdout.write(json.dumps(renderings) + "\n")
        sys.stdout.flush()
