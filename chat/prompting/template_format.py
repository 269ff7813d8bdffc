"""The format of a model file's Jinja template: rendered with marks in place of contents, cut at the marks.

Dialogues whose text the template composes of the same pieces are encoded piece by piece; the shapes of others are
rendered one by one, which costs a prompt its prefix in the KV cache, not its form.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

from chat.enums import Effort
from chat.prompting.chat_format import ChatFormat, PastTurn, PromptSegment, content, scaffold
from chat.prompting.dialogue_layout import (
    ANSWER,
    MARK_CHARS,
    RESULT_HEAD,
    RESULT_TAIL,
    SYSTEM,
    THOUGHT,
    USER,
    DialogueLayout,
    DialogueShape,
    Pieces,
    checked_shapes,
    mark,
    marked_conversation,
    pieces_of,
    shows_all,
)
from chat.prompting.jinja_sandbox import TemplateRendering, TemplateUnusable, render
from chat.prompting.thought_marks import MarkStyle, style_of, thought_marks
from chat.tool_calling.call_text import is_results
from inference.config.tokenizer import Tokenizer
from inference.errors import ModelUnavailable

Options = Mapping[str, object]
MAX_REASON_CHARS = 300

# Names that templates have for no thought and for an amount of it, the usual one first; a template that raises for
# one is given the next.
EFFORT_NAMES: dict[Effort, tuple[str, ...]] = {
    Effort.NONE: ("none", "no_think"),
    Effort.LOW: ("low",),
    Effort.MEDIUM: ("medium", "high"),
    Effort.HIGH: ("high",),
}


@dataclass(frozen=True)
class _Template:
    """A template with the variables that it is rendered with."""

    source: str
    bos: str
    eos: str
    options: Options
    takes_system: bool = True
    takes_results: bool = False  # of tools, in a role of their own and between the marks that are written here

    def render(self, shapes: Sequence[DialogueShape]) -> list[TemplateRendering]:
        conversations = [
            marked_conversation(shape, takes_system=self.takes_system, takes_results=self.takes_results)
            for shape in shapes
        ]
        return render(self.source, bos=self.bos, eos=self.eos, conversations=conversations, options=self.options)

    def checked_texts(self) -> dict[DialogueShape, TemplateRendering]:
        """Return the renderings that a layout is read from. Raises TemplateUnusable."""
        shapes = [*checked_shapes(has_system=False), *checked_shapes(has_system=True)]
        texts = dict(zip(shapes, self.render(shapes), strict=True))
        for shape, rendering in texts.items():
            if not any((*shape.thoughts, *shape.results)) and not shows_all(rendering.text, shape):
                raise TemplateUnusable(f"the chat template cannot render a plain dialogue: {_problem(rendering)}")
        return texts


class TemplateFormat(ChatFormat):
    """Raises TemplateUnusable for a template that cannot render a plain dialogue."""

    name = "template"

    def __init__(self, tokenizer: Tokenizer, template: str, effort: Effort | None = None) -> None:
        if not template:
            raise TemplateUnusable("the model file has no chat template")
        if any(char in template for char in MARK_CHARS):
            raise TemplateUnusable("the chat template contains characters of the private use area")
        self._template = _usable(template, tokenizer, effort)
        texts = self._template.checked_texts()
        plain = _layout(texts, has_system=False)
        self._plain = plain
        self._with_system = _layout(texts, has_system=True)
        self._exact = {
            (has_system, *kind): self._is_exact(texts, has_system, *kind)
            for has_system in (False, True)
            for kind in product((False, True), (False, True))
        }
        self._common = _safe_cut(tokenizer, plain, plain.common_after_user)
        generation = plain.generation.removeprefix(self._common)
        style = style_of(template, "".join(rendering.text for rendering in texts.values()))
        # Without the options and the text before an answer: whether the next answer is to have a thought changes no
        # past turn of most templates.
        layouts = [replace(layout, generation="") for layout in (plain, self._with_system)]
        super().__init__(tokenizer, repr((template, self._common, layouts)))
        self.generation_ids = tuple(tokenizer.encode(generation, special=True)) if generation else ()
        self._generation = generation
        if style is not None:
            self.thought = thought_marks(style, plain.generation, tokenizer)
        if style is not None or plain.after_user != plain.generation:
            self.generated_key = f"{self.fingerprint}:own"
        self._whole_pieces = lru_cache(maxsize=64)(self._render_shape)

    @property
    def options(self) -> Options:
        """The variables that the template is rendered with."""
        return self._template.options

    @property
    def takes_system(self) -> bool:
        """Return whether the template shows a message of the system; else the first user text begins with it."""
        return self._template.takes_system

    def opening_segments(self, system: str, user: str) -> list[PromptSegment]:
        pieces = (self._with_system if system else self._plain).opening
        return [*_filled(pieces, {SYSTEM: system}), content(user), scaffold(self._common)]

    def follow_up_segments(self, user: str) -> list[PromptSegment]:
        return [scaffold(self._plain.after_answer), content(user), scaffold(self._common)]

    def answer(self, text: str, thought: str = "", *, limit: int | None = None) -> list[int]:
        return self._encode(self._answer_segments(text.strip(), thought.strip()), limit)

    def generated_answer(self, ids: Sequence[int], text: str, thought: str) -> list[int]:
        if not ids or self.generated_key == self.fingerprint:
            return super().generated_answer(ids, text, thought)
        rendered = "".join(segment.text for segment in self._answer_segments(text.strip(), thought.strip()))
        generated = self._generation + b"".join(map(self.tokenizer.spelled, ids)).decode("utf-8", "replace")
        if rendered.rstrip() != generated.rstrip():
            return self.answer(text, thought)
        return [*self.generation_ids, *ids]

    def is_piecewise(self, *, has_system: bool, has_thoughts: bool, has_results: bool = False) -> bool:
        return self._exact[has_system, has_thoughts, has_results]

    def whole(self, system: str, past: Sequence[PastTurn], user: str, *, limit: int | None = None) -> list[int]:
        try:
            results = tuple(is_results(text) for text in (*(turn.user for turn in past[1:]), user)) if past else ()
            thoughts = tuple(bool(turn.thought) for turn in past)
            pieces = self._whole_pieces(DialogueShape(bool(system), thoughts, results if any(results) else ()))
        except TemplateUnusable as error:
            raise ModelUnavailable(str(error)) from error
        contents = {SYSTEM: system.strip(), f"{USER}{len(past) + 1}": user.strip()}
        for number, turn in enumerate(past, start=1):
            contents[f"{USER}{number}"] = turn.user.strip()
            contents[f"{ANSWER}{number}"] = turn.answer.strip()
            contents[f"{THOUGHT}{number}"] = turn.thought.strip()
        for number, is_result in enumerate(results, start=2):
            if is_result:
                text = contents[f"{USER}{number}"]
                contents[f"{USER}{number}"] = text.removeprefix(RESULT_HEAD).removesuffix(RESULT_TAIL)
        return self._encode(list(_filled(pieces, contents)), limit)

    def _render_shape(self, shape: DialogueShape) -> Pieces:
        """Raises TemplateUnusable for a dialogue of which the template drops a text."""
        [rendering] = self._template.render([shape])
        if not rendering.refusal and shows_all(rendering.text, shape):
            return pieces_of(rendering.text)
        raise TemplateUnusable(f"the chat template cannot render this dialogue: {_problem(rendering)}")

    def _answer_segments(self, text: str, thought: str) -> list[PromptSegment]:
        layout = self._plain
        if not thought:
            return [scaffold(layout.after_user.removeprefix(self._common)), content(text)]
        segments = [scaffold(layout.before_thought.removeprefix(self._common))]
        if layout.after_thought is not None:
            segments += [content(thought), scaffold(layout.after_thought)]
        return [*segments, content(text)]

    def _is_exact(
        self,
        texts: Mapping[DialogueShape, TemplateRendering],
        has_system: bool,
        has_thoughts: bool,
        has_results: bool,
    ) -> bool:
        """Return whether the pieces make up the template's own renderings of dialogues of this kind."""
        layout = self._with_system if has_system else self._plain
        # Turns are stored without regard to the system text before them.
        if replace(layout, opening=self._plain.opening) != self._plain:
            return False
        kind = (has_system, has_thoughts, has_results)
        shapes = [shape for shape in texts if (shape.has_system, any(shape.thoughts), any(shape.results)) == kind]
        # A template that cannot show results in a user turn has no place of its own for them.
        if has_results and not all(shows_all(texts[shape].text, shape) for shape in shapes):
            return self._is_exact(texts, has_system, has_thoughts, False)
        return all(layout.predicted(shape) == texts[shape].text for shape in shapes)


def effort_options(effort: Effort | None, style: MarkStyle | None) -> list[Options]:
    """Return the variables for an effort, in the order in which a template is to be tried with them."""
    if effort is None:
        return [{}]
    switches = {"enable_thinking": effort is not Effort.NONE, "thinking": effort is not Effort.NONE}
    names = EFFORT_NAMES.get(effort, ())
    if effort is Effort.NONE and style is not None and style.is_channels:
        names = ("low",)  # it has no name for none, and would show the word to the model
    return [*({**switches, "reasoning_effort": name} for name in names), switches, {}]


def _usable(source: str, tokenizer: Tokenizer, effort: Effort | None) -> _Template:
    """Return the template with the first options that it accepts, and whether it shows a system message."""
    alone, with_system = DialogueShape(has_system=False), DialogueShape(has_system=True)
    with_result = DialogueShape(has_system=False, thoughts=(False,), results=(True,))
    refusal = TemplateRendering()
    for options in effort_options(effort, style_of(source, "")):
        template = _Template(source, tokenizer.bos_text, tokenizer.eos_text, options, takes_results=True)
        plain, system, result = template.render([alone, with_system, with_result])
        if shows_all(plain.text, alone):
            # Some templates refuse a system message, others drop it: both get it before the first user text.
            takes_system = shows_all(system.text, with_system)
            takes_results = RESULT_HEAD + mark(USER, 2) + RESULT_TAIL in result.text
            return replace(template, takes_system=takes_system, takes_results=takes_results)
        refusal = plain
    raise TemplateUnusable(f"the chat template cannot render a plain dialogue: {_problem(refusal)}")


def _problem(rendering: TemplateRendering) -> str:
    """Return the reason in a form for logs and pages: a template may refuse with any text."""
    reason = rendering.refusal[:MAX_REASON_CHARS] or "it drops texts"
    return "".join(char if char.isprintable() else " " for char in reason)


def _layout(texts: Mapping[DialogueShape, TemplateRendering], *, has_system: bool) -> DialogueLayout:
    alone, plain, thinking = (
        texts[DialogueShape(has_system, pattern)].text for pattern in ((), (False, False), (True, True))
    )
    layout = DialogueLayout.of(alone, plain, thinking)
    if layout is None:
        raise TemplateUnusable("the chat template renders a dialogue in another order")
    return layout


def _safe_cut(tokenizer: Tokenizer, layout: DialogueLayout, common: str) -> str:
    """Return ``common`` or its longest start at which every text after a user turn may be cut without other tokens."""
    texts = {layout.generation, layout.after_user, layout.before_thought}

    def is_safe(end: int) -> bool:
        return all(
            tokenizer.encode(text[:end], special=True) + tokenizer.encode(text[end:], special=True)
            == tokenizer.encode(text, special=True)
            for text in texts
        )

    return common[: next((end for end in range(len(common), 0, -1) if is_safe(end)), 0)]


def _filled(pieces: Pieces, contents: Mapping[str, str]) -> Iterator[PromptSegment]:
    for index, piece in enumerate(pieces):
        yield content(contents.get(piece, "")) if index % 2 else scaffold(piece)
