"""Speakers and times of the lines of one file.

A colon is not always a label ("Note: bring cake"): a name counts when it occurs again, when it stands beside a time, or
when most lines have a label.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import zip_longest

from chat.rag.ingest.line_labels import Label, label_of
from chat.rag.ingest.paragraphs import Paragraph
from chat.rag.numeric_dates import is_day_first


@dataclass
class Utterance:
    """Lines of one speaker in one block, of which ``number`` is the first line; times are those of the label."""

    number: int
    speaker: str
    lines: list[str] = field(default_factory=list)
    start_secs: float | None = None
    end_secs: float | None = None
    said_at: datetime | None = None

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.lines).split())

    @property
    def has_time(self) -> bool:
        return self.start_secs is not None or self.said_at is not None


class SpeakerLabels:
    """Names of the speakers in the lines of one file."""

    def __init__(self, lines: Iterable[str]) -> None:
        labels = [label_of(line) for line in lines]
        # "10:30 Coffee" names a speaker only above what that one said.
        for number, (label, below) in enumerate(zip_longest(labels, labels[1:])):
            if label and label.may_be_hour and not label.rest and (below or number + 1 == len(labels)):
                labels[number] = None
        present = [label for label in labels if label]
        counts = Counter(label.name for label in present if label.name)
        # Times alone divide a text that has them in order; others are part of it.
        starts = [label.start_secs for label in present if label.start_secs is not None]
        self.are_ordered = len(starts) > 1 and starts == sorted(starts)
        n_labelled = sum(1 for label in present if label.name or label.date or self.are_ordered) + _n_below(labels)
        # Also true for a file of a single line, whose label is the only evidence.
        self.are_rule = 2 * n_labelled >= len(labels) > 0
        self.names = {name for name, n in counts.items() if n > 1 or self.are_rule}
        self.names |= {label.name for label in present if label.has_time and label.rest and label.name}
        self.day_first = is_day_first(label.date for label in present if label.date)

    @property
    def divide(self) -> bool:
        """Tell whether the lines are a conversation, or a text with times."""
        return self.are_rule and (bool(self.names) or self.are_ordered)

    def utterances(self, blocks: Iterable[Paragraph]) -> list[Utterance]:
        """Divide the lines; those without a label continue the previous ones of their block.

        A label with a time, and one without a text beside it, count for the following blocks, too.
        """
        utterances: list[Utterance] = []
        for block in blocks:
            is_continued = bool(utterances) and (utterances[-1].has_time or not utterances[-1].lines)
            for content in block.lines:
                label = self._counting(content)
                if label:
                    utterances.append(self._begun(label, block.number))
                elif not utterances or not is_continued:
                    utterances.append(Utterance(block.number, "", [content]))
                elif utterances[-1].lines and utterances[-1].number != block.number:
                    last = utterances[-1]
                    utterances.append(
                        Utterance(block.number, last.speaker, [content], last.start_secs, last.end_secs, last.said_at)
                    )
                else:
                    utterances[-1].lines.append(content)
                is_continued = True
        return [_with_text(utterance) for utterance in utterances]

    def _counting(self, content: str) -> Label | None:
        label = label_of(content)
        if label is None or (label.name not in self.names if label.name else not (self.are_ordered or label.date)):
            return None
        return label

    def _begun(self, label: Label, number: int) -> Utterance:
        rest = [label.rest] if label.rest else []
        said_at = label.said_at(day_first=self.day_first)
        return Utterance(number, label.name, rest, label.start_secs, label.end_secs, said_at)


def _n_below(labels: Sequence[Label | None]) -> int:
    """Count the lines that belong to a label on a line of its own."""
    n_lines, is_below = 0, False
    for label in labels:
        is_below = not label.rest if label else is_below
        n_lines += is_below and label is None
    return n_lines


def _with_text(utterance: Utterance) -> Utterance:
    """Return the utterance; a "name" beside a time that nothing follows is what was said."""
    if not utterance.lines and utterance.has_time:
        utterance.lines, utterance.speaker = [utterance.speaker], ""
    return utterance
