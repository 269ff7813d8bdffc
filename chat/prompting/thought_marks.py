"""The marks that chat templates put around thoughts, by family of models. Knows no dialogues.

Templates show these marks in the text of past answers or of the generation prompt; the models write the same.
"""

import re
from dataclasses import dataclass

from inference.config.tokenizer import Tokenizer
from inference.engine.params import ThoughtMarks
from inference.engine.text.thought_splitter import spelled_control


@dataclass(frozen=True)
class MarkStyle:
    """Marks of one family. ``sign``: text of a template by which the family is recognized."""

    sign: str
    opens: tuple[str, ...]
    closes: tuple[str, ...]
    answers: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    closing: str = ""  # written to end a thought at its limit; by default the first of ``closes``
    is_channels: bool = False  # every part of an answer has a header


def _tags(name: str) -> MarkStyle:
    return MarkStyle(f"</{name}>", (f"<{name}>",), (f"</{name}>",))


def _channels(start: str, thought: str, answers: tuple[str, ...], end: str) -> MarkStyle:
    """Messages with a header each, the first of which may lack its ``start``: the prompt ends with that."""
    return MarkStyle(
        sign=thought,
        opens=(thought, start + thought),
        closes=(end,),
        answers=(*answers, *(start + answer for answer in answers)),
        ends=(end,),
        closing=end + start + answers[0],
        is_channels=True,
    )


_TAG = re.compile(r"</?([\w:]*think[\w:]*)>")
STYLES = (
    MarkStyle(  # Granite 3.3
        "between <response></response>", ("<think>",), ("</think>",), answers=("<response>",), ends=("</response>",)
    ),
    MarkStyle("[/THINK]", ("[THINK]",), ("[/THINK]",)),
    MarkStyle("<channel|>", ("<|channel>thought\n", "<|channel>thought"), ("<channel|>",)),  # Gemma 4
    MarkStyle("<|inner_suffix|>", ("<|inner_prefix|>",), ("<|inner_suffix|>",)),  # Apertus
    MarkStyle(  # Command R7B and its successors
        "<|END_THINKING|>",
        ("<|START_THINKING|>",),
        ("<|END_THINKING|>",),
        answers=("<|START_RESPONSE|>", "<|START_TEXT|>"),
    ),
    _channels(  # gpt-oss
        "<|start|>assistant",
        "<|channel|>analysis<|message|>",
        ("<|channel|>final<|message|>", "<|channel|>commentary<|message|>"),
        "<|end|>",
    ),
    _channels("<|start|>assistant", " to=self<|message|>", (" to=user<|message|>",), "<|eom|>"),
    _channels("<|begin|>assistant", "<|think|>", ("<|content|>",), "<|end|>"),  # Solar
    MarkStyle(  # Kimi K3
        "<|close|>think<|sep|>",
        ("<|open|>think<|sep|>",),
        ("<|close|>think<|sep|>",),
        answers=("<|open|>response<|sep|>",),
        ends=("<|close|>response<|sep|>",),
    ),
    MarkStyle(  # Apriel
        "[BEGIN FINAL RESPONSE]",
        ("Here are my reasoning steps:\n",),
        ("[BEGIN FINAL RESPONSE]",),
        ends=("[END FINAL RESPONSE]",),
    ),
)


def style_of(template: str, renderings: str) -> MarkStyle | None:
    """Return the family of a template; some write their marks in pieces that only a rendering joins."""
    texts = template + renderings
    if style := next((style for style in STYLES if style.sign in texts), None):
        return style
    tag = _TAG.search(renderings) or _TAG.search(template)
    return _tags(tag[1]) if tag else None


def thought_marks(style: MarkStyle, generation: str, tokenizer: Tokenizer) -> ThoughtMarks:
    """Return the marks as the engine sees them; a thought that ``generation`` opens and does not close is open."""
    opened = max(generation.rfind(mark.rstrip()) for mark in style.opens)
    closed = max(generation.rfind(mark) for mark in style.closes)
    encoded = {name: tokenizer.encode(name, special=True) for name in tokenizer.vocabulary.marker_texts()}
    silent = [name for name, ids in encoded.items() if len(ids) == 1 and not tokenizer.vocabulary.piece(ids[0])]
    # Names of tokens without a text, the longest first: one may be the beginning of another.
    controls = sorted(silent, key=len, reverse=True)

    def spelled(marks: tuple[str, ...]) -> list[str]:
        return [_spelled(mark, controls) for mark in marks]

    return ThoughtMarks(
        opens=spelled(style.opens),
        closes=spelled(style.closes),
        answers=spelled(style.answers),
        ends=spelled(style.ends),
        is_open=opened > closed,
        limit_ids=tokenizer.encode(style.closing or style.closes[0], special=True),
    )


def _spelled(mark: str, controls: list[str]) -> str:
    for name in controls:
        before, control, after = mark.partition(name)
        if control:
            return _spelled(before, controls) + spelled_control(name) + _spelled(after, controls)
    return mark
