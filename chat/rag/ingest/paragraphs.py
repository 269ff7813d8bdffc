"""Paragraphs of a text file, with line numbers. Knows no format."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Paragraph:
    """Consecutive lines; ``number`` is that of the first, from 1 on."""

    number: int
    lines: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "\n".join(self.lines).strip()


def split_lines(text: str) -> list[str]:
    """Split at line ends; ``str.splitlines`` splits at more characters and so shifts the line numbers."""
    return re.split(r"\r\n|\n|\r", text)


def paragraphs(text: str) -> Iterator[Paragraph]:
    """Yield the consecutive lines that are not blank, each paragraph when it is complete."""
    paragraph: Paragraph | None = None
    for number, content in enumerate(split_lines(text), start=1):
        if content.strip():
            paragraph = paragraph or Paragraph(number)
            paragraph.lines.append(content)
        elif paragraph:
            yield paragraph
            paragraph = None
    if paragraph:
        yield paragraph
