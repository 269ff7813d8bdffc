"""Chat templates of many models against Jinja itself: ``python -m tests.clients.templates [FOLDER]``.

Without a folder the templates are those of llama.cpp, taken from the source distribution of the installed
llama-cpp-python. Each is rendered for dialogues of one to three turns, with and without system text and thoughts, at
three efforts; the prompt that the service builds turn by turn has to equal the template's own rendering.
"""

import os
import subprocess
import sys
import tarfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gemma_project.settings")
django.setup()

from chat.enums import Effort  # noqa: E402  models need the settings
from chat.prompting.jinja_sandbox import TemplateUnusable  # noqa: E402
from chat.prompting.tool_instructions import tool_instructions  # noqa: E402
from chat.tool_calling.call_text import instructions  # noqa: E402
from tests.chat.prompting.dialogues import TOOLS, Comparison, compared, compared_calls  # noqa: E402
from tests.chat.vocabularies import fake_tokenizer  # noqa: E402

PACKAGE = "llama-cpp-python"
FOLDER = "vendor/llama.cpp/models/templates"
EFFORTS = (None, Effort.NONE, Effort.HIGH)


def fetched(folder: Path) -> Path:
    """Download the source distribution and unpack its templates."""
    requirement = f"{PACKAGE}=={version(PACKAGE)}"
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    subprocess.run([*download, "--dest", str(folder), requirement], check=True)
    [archive] = folder.glob("*.tar.gz")
    with tarfile.open(archive) as package:
        members = [member for member in package.getmembers() if f"/{FOLDER}/" in member.name]
        package.extractall(folder, members=members, filter="data")
    [templates] = folder.glob(f"*/{FOLDER}")
    return templates


def verdict(path: Path) -> str:
    """Return ``equal``, or the reason why not."""
    template = path.read_text(encoding="utf-8")
    try:
        differing = [(effort, case) for effort in EFFORTS for case in compared(template, effort) if not case.is_equal]
    except TemplateUnusable as error:
        return f"refused: {error}"
    if differing:
        effort, case = differing[0]
        return _difference(f"{len(differing)} dialogues, the first with {case.n_turns} turns at effort {effort}", case)
    return f"equal, {calls_verdict(template)}"


def calls_verdict(template: str) -> str:
    """Return the same for dialogues with calls of tools."""
    if tool_instructions(TOOLS, fake_tokenizer(template=template)) == instructions(TOOLS):
        return "calls in our own form"
    differing = [case for case in compared_calls(template) if not case.is_equal]
    if not differing:
        return "calls equal"
    case = differing[0]
    thoughts = "with thoughts" if case.has_thoughts else "without thoughts"
    return _difference(f"{len(differing)} dialogues of calls, the first with {case.n_turns} turns {thoughts}", case)


def _difference(where: str, case: Comparison) -> str:
    return f"differs: {where}\n    {case.prompt!r}\n    {case.expected.text or case.expected.refusal!r}"


def main(folder: Path | None) -> int:
    with TemporaryDirectory() as scratch:
        paths = sorted((folder or fetched(Path(scratch))).glob("*.jinja"))
        verdicts = {path.name: verdict(path) for path in paths}
    counts = Counter("differs" if "differs" in result else result.partition(":")[0] for result in verdicts.values())
    lines = [f"{name}: {result}" for name, result in verdicts.items()]
    totals = ", ".join(f"{number} {kind}" for kind, number in sorted(counts.items()))
    sys.stdout.write("\n".join([*lines, f"{len(verdicts)} templates: {totals}"]) + "\n")
    return 1 if counts["differs"] or not verdicts else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
