"""Render a model file's Jinja template in a child process with limits on time, memory and size.

A template is untrusted code: Jinja's sandbox protects objects of the process, but does not end endless loops. The child
runs this file as its program without Django; imported, it is the parent's side of the pipe.
"""

import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import NoReturn

from jinja2 import Template, TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_TEMPLATE_CHARS = 128 * 1024
MAX_RENDERED_CHARS = 256 * 1024
CPU_SECS = 2
WALL_SECS = 20.0  # a loaded machine may give the child little of its CPU seconds
MEMORY_BYTES = 1024 * 1024 * 1024

Conversation = list[dict[str, str]]


class TemplateUnusable(Exception):
    """The template exceeds a limit or is no valid Jinja; nothing can be rendered with it."""


@dataclass(frozen=True)
class TemplateRendering:
    """The text of one conversation, or the reason why the template refused it."""

    text: str = ""
    refusal: str = ""


def render(template: str, *, bos: str, eos: str, conversations: list[Conversation]) -> list[TemplateRendering]:
    """Render each conversation up to the start of the next answer. Raises TemplateUnusable."""
    if len(template) > MAX_TEMPLATE_CHARS:
        raise TemplateUnusable(f"the chat template has more than {MAX_TEMPLATE_CHARS} characters")
    job = json.dumps({"template": template, "bos": bos, "eos": eos, "conversations": conversations})
    try:
        child = subprocess.run(
            [sys.executable, "-I", __file__], input=job.encode(), capture_output=True, timeout=WALL_SECS, check=False
        )
    except subprocess.TimeoutExpired:
        raise TemplateUnusable(f"the chat template took longer than {WALL_SECS:.0f} s to render") from None
    if child.returncode != 0:
        last_line = child.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise TemplateUnusable(f"rendering the chat template ended with {child.returncode}: {last_line[:300]}")
    return [TemplateRendering(**answer) for answer in json.loads(child.stdout)]


# ---- the child ----


def _render_one(template: Template, conversation: Conversation, bos: str, eos: str) -> dict[str, str]:
    parts: list[str] = []
    n_chars = 0
    try:
        for part in template.generate(messages=conversation, add_generation_prompt=True, bos_token=bos, eos_token=eos):
            n_chars += len(part)
            if n_chars > MAX_RENDERED_CHARS:
                sys.exit(f"more than {MAX_RENDERED_CHARS} characters")
            parts.append(part)
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        # A refusal (of a system message, of an order of roles) is a result, not a failure.
        return {"refusal": str(error) or type(error).__name__}
    return {"text": "".join(parts)}


def _main() -> None:
    # Before the template is even parsed: parsing runs constant expressions.
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECS, CPU_SECS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    job = json.loads(sys.stdin.buffer.read())

    def raise_exception(message: str) -> NoReturn:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = time.strftime
    template = environment.from_string(job["template"])
    answers = [_render_one(template, texts, job["bos"], job["eos"]) for texts in job["conversations"]]
    sys.stdout.write(json.dumps(answers))


if __name__ == "__main__":
    _main()
