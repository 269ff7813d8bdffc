"""Foreign texts within a Markdown page: quoted, and without tags that a viewer would run. Knows no conversations."""

import re

# What begins a tag, a comment or a processing instruction; any other "<" is text.
_TAG_START = re.compile(r"<(?=[A-Za-z/!?])")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})([^\n]*)")


def quoted(text: str) -> str:
    """Return a text as a quotation: none of its headings, fences or rules reaches beyond it."""
    return "\n".join(f"> {line}" for line in without_tags(text).splitlines())


def one_line(text: str) -> str:
    """Return a text as part of a line of its own."""
    return _TAG_START.sub("&lt;", " ".join(text.split()))


def without_tags(text: str) -> str:
    """Escape tags outside of fenced code, where every viewer shows them as text."""
    lines = []
    fence = ""
    for line in text.splitlines():
        match = _FENCE.match(line)
        if fence:
            lines.append(line)
            if match and match[1].startswith(fence) and not match[2].strip():
                fence = ""
            continue
        # Backticks after a fence of backticks make it a code span within a line.
        if match and not (match[1][0] == "`" and "`" in match[2]):
            fence = match[1]
        lines.append(_TAG_START.sub("&lt;", line))
    return "\n".join(lines)
